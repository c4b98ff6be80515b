//! Why a transaction was not taken, and who has to wait for that.

use std::time::Duration;

use bytes::Bytes;
use chappe_rooms::PeerError;
use chappe_rules::json;
use http::{HeaderMap, StatusCode, header};
use ruma::ServerName;
use serde::Deserialize;

use super::transaction::Batch;
use crate::network::{has_errcode, refusal};

/// A transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untaken {
    /// The other server was not reached: nobody need ask it anything for a while.
    #[error("it was not reached")]
    Unreached,
    /// It was reached and did not take it: only what is sent to it waits.
    #[error("{status}: {why}")]
    Refused {
        /// Of its answer.
        status: StatusCode,
        /// What it says.
        why: PeerError,
        /// Whether that is a homeserver's word, and not of what stands before one.
        itself: bool,
        /// In how many milliseconds it wants it again, if it found it too much for now.
        again_in: Option<u64>,
    },
    /// It cannot be sent, or what came is no answer.
    #[error("{0}")]
    Malformed(String),
}

impl From<PeerError> for Untaken {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Unreachable(_) => Self::Unreached,
            other => Self::Malformed(other.to_string()),
        }
    }
}

impl Untaken {
    /// What an answer says that is not a good one.
    pub(super) fn refused(by: &ServerName, answer: &http::Response<Bytes>) -> Self {
        let (status, body) = (answer.status(), answer.body());
        let too_much = status == StatusCode::TOO_MANY_REQUESTS;
        let again_in = too_much.then(|| again_in(answer.headers(), body)).flatten();
        Self::Refused { status, why: refusal(by, status, body), itself: has_errcode(body), again_in }
    }

    /// Whether it may lie in what is in there: the other server says so, it is too long for what stands before that, or it cannot
    /// be signed.
    pub(super) fn may_be_of(&self, batch: &Batch) -> bool {
        match self {
            Self::Refused { status, itself, .. } => match status.as_u16() {
                400 | 422 => *itself,
                413 => true,
                _ => false,
            },
            // It cannot be signed; an answer that nobody can read is the same error.
            Self::Malformed(_) => json::as_servers_write(&batch.body).is_err(),
            Self::Unreached => false,
        }
    }
}

#[derive(Default, Deserialize)]
struct TooMuch {
    retry_after_ms: Option<f64>,
}

/// The wait that is asked for, in milliseconds: by the header, or as servers of before specification 1.10 say it.
fn again_in(headers: &HeaderMap, body: &[u8]) -> Option<u64> {
    let header = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    if let Some(seconds) = header.and_then(|text| text.trim().parse::<u64>().ok()) {
        return Some(seconds.saturating_mul(1_000));
    }
    let TooMuch { retry_after_ms } = serde_json::from_slice(body).unwrap_or_default();
    let wait = Duration::try_from_secs_f64(retry_after_ms? / 1_000.0).ok()?;
    u64::try_from(wait.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn the_wait_is_told_by_header_or_body() {
        let wait = |header: Option<&str>, body: &'static str| {
            let mut answer = http::Response::builder().status(429);
            if let Some(header) = header {
                answer = answer.header(header::RETRY_AFTER, header);
            }
            let answer = answer.body(Bytes::from_static(body.as_bytes())).unwrap();
            match Untaken::refused(server_name!("peer.example"), &answer) {
                Untaken::Refused { again_in, .. } => again_in,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(Some("7"), r#"{"retry_after_ms":9}"#), Some(7_000));
        assert_eq!(wait(None, r#"{"retry_after_ms":1500.5}"#), Some(1_500));
        assert_eq!(wait(Some("Wed, 21 Oct 2026 07:28:00 GMT"), r#"{"retry_after_ms":9}"#), Some(9));
        assert_eq!(wait(Some("99999999999999999999"), "<html>"), None);
        for senseless in [r#"{"retry_after_ms":-1}"#, r#"{"retry_after_ms":"soon"}"#, "[]", ""] {
            assert_eq!(wait(None, senseless), None, "{senseless}");
        }
    }
}
