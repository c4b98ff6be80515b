//! Answers that are no good ones: a server that is away, that is busy, that refuses, and what becomes of that here.

use bytes::{Bytes, BytesMut};
use chappe_rooms::PeerError;
use chappe_world::Body;
use futures_util::StreamExt;
use http::StatusCode;
use ruma::ServerName;
use serde::Deserialize;
use serde_json::Value;

/// How much is read of a refusal where answers are not read whole, in bytes.
const MAX_REFUSAL_BYTES: usize = 16 << 10;

/// Answers that say that the way to the server is not in order: no homeserver gives them, but what stands before it. Those
/// above 520 are a widespread one's own.
pub(crate) fn is_astray(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 520..=530) || status.is_redirection() || status.is_informational()
}

/// Those, and what is said in place of a server that is away. Servers give the same statuses, but with an error of Matrix.
pub(super) fn is_down(answer: &http::Response<Bytes>) -> bool {
    let may_be_away = matches!(answer.status().as_u16(), 502..=504);
    is_astray(answer.status()) || (may_be_away && !has_errcode(answer.body()))
}

/// Whether an error is one of Matrix, which no gateway gives.
pub(crate) fn has_errcode(body: &[u8]) -> bool {
    let said: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    !said.errcode.is_empty()
}

/// What is said with a refusal, as far as it is short.
pub(super) async fn beginning(answer: http::Response<Body>) -> http::Response<Bytes> {
    let (head, mut body) = answer.into_parts();
    let mut bytes = BytesMut::new();
    while bytes.len() < MAX_REFUSAL_BYTES
        && let Some(Ok(piece)) = body.next().await
    {
        bytes.extend_from_slice(&piece);
    }
    http::Response::from_parts(head, bytes.freeze())
}

/// Leaves out answers that say that the server is there, only not for this question at this moment.
pub(super) fn willing<T>(to: &ServerName, answer: http::Response<T>) -> Result<http::Response<T>, PeerError> {
    let status = answer.status();
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return Err(PeerError::Unreachable(to.to_owned()));
    }
    Ok(answer)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    errcode: String,
    error: String,
    room_version: Value,
}

/// What a peer's refusal becomes: never its token errors, never its HTML, never more than a line.
pub(crate) fn refusal(to: &ServerName, status: StatusCode, body: &[u8]) -> PeerError {
    if status == StatusCode::UNAUTHORIZED {
        return PeerError::Unreachable(to.to_owned());
    }
    let ErrorBody { errcode, error, room_version } = serde_json::from_slice(body).unwrap_or_default();
    let sound = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_.".contains(&byte);
    let known = errcode.len() <= 64 && !errcode.is_empty() && errcode.bytes().all(sound);
    let harmless = !matches!(
        errcode.as_str(),
        "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN" | "M_USER_LOCKED" | "M_USER_DEACTIVATED" | "M_LIMIT_EXCEEDED"
    );
    let errcode = if known && harmless { errcode } else { "M_UNKNOWN".to_owned() };
    let error = error.chars().filter(|char| !char.is_control()).take(300).collect();
    let room_version = room_version.as_str().and_then(|version| version.try_into().ok());
    PeerError::Refused { status: status.as_u16(), errcode, error, room_version }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn refused(status: u16, body: &str) -> PeerError {
        refusal(server_name!("peer.example"), StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn a_server_that_gives_an_error_itself_is_not_away() {
        let is_down = |status: u16, body: &'static str| {
            is_down(
                &http::Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap(),
            )
        };
        for status in [502, 503, 504] {
            assert!(!is_down(status, r#"{"errcode":"M_NOT_YET_UPLOADED","error":"later"}"#), "{status}");
            for of_gateway in ["", "<html>", r#"{"message":"no upstream"}"#, r#"{"errcode":7}"#] {
                assert!(is_down(status, of_gateway), "{status} {of_gateway}");
            }
        }
        assert!(is_down(302, r#"{"errcode":"M_UNKNOWN"}"#) && !is_down(500, "<html>") && !is_down(200, ""));
    }

    #[test]
    fn the_version_that_a_refusal_names_is_kept() {
        let named = |version: &str| {
            let body = format!(r#"{{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","room_version":"{version}"}}"#);
            let PeerError::Refused { room_version, .. } = refused(400, &body) else { panic!("{version}") };
            room_version.map(|version| version.to_string())
        };
        assert_eq!(named("org.example.7").as_deref(), Some("org.example.7"));
        assert_eq!((named(""), named(&"7".repeat(33))), (None, None));
        let odd = refused(404, r#"{"errcode":"M_NOT_FOUND","room_version":7}"#);
        assert!(matches!(&odd, PeerError::Refused { errcode, .. } if errcode == "M_NOT_FOUND"), "{odd:?}");
    }

    #[test]
    fn token_errors_of_peers_never_reach_clients() {
        assert!(matches!(refused(401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#), PeerError::Unreachable(_)));
        for body in
            [r#"{"errcode":"M_UNKNOWN_TOKEN","soft_logout":true}"#, "<html>", "", r#"{"errcode":"<b>"}"#]
        {
            let PeerError::Refused { status: 403, errcode, .. } = refused(403, body) else {
                panic!("{body}")
            };
            assert_eq!(errcode, "M_UNKNOWN");
        }
        let PeerError::Refused { errcode, error, .. } =
            refused(404, r#"{"errcode":"M_NOT_FOUND","error":"a\nb"}"#)
        else {
            panic!("not refused")
        };
        assert_eq!((errcode.as_str(), error.as_str()), ("M_NOT_FOUND", "ab"));
    }
}
