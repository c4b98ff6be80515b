//! Errors in the words of the content scanner: `reason` and `info`, beside those that every Matrix client knows.

use axum::response::{IntoResponse, Response};
use chappe_media::Error as MediaError;
use chappe_scanner::Error as E;
use http::StatusCode;

/// An error on its way to a client.
pub(super) struct Refusal(chappe_web::Error);

/// What handlers give.
pub(super) type Result<T, E = Refusal> = std::result::Result<T, E>;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (reason, info) = (self.0.errcode().to_owned(), self.0.sentence().to_owned());
        self.0.with("reason", reason).with("info", info).into_response()
    }
}

impl From<chappe_web::Error> for Refusal {
    fn from(error: chappe_web::Error) -> Self {
        Self(error)
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        Self(error.0)
    }
}

impl From<E> for Refusal {
    fn from(error: E) -> Self {
        if let E::Media(error) = error {
            return error.into();
        }
        let with = |status, reason| chappe_web::Error::new(status, reason, error.to_string());
        Self(match &error {
            E::Malformed(_) => with(StatusCode::BAD_REQUEST, "MCS_MALFORMED_JSON"),
            E::FailedToDecrypt(_) => with(StatusCode::BAD_REQUEST, "MCS_MEDIA_FAILED_TO_DECRYPT"),
            E::NotClean(_) => with(StatusCode::FORBIDDEN, "MCS_MEDIA_NOT_CLEAN"),
            E::TypeForbidden => with(StatusCode::FORBIDDEN, "MCS_MIME_TYPE_FORBIDDEN"),
            E::BadDecryption => with(StatusCode::FORBIDDEN, "MCS_BAD_DECRYPTION"),
            _ => chappe_web::Error::internal(&error),
        })
    }
}

impl From<MediaError> for Refusal {
    fn from(error: MediaError) -> Self {
        use MediaError as M;
        Self(match &error {
            M::NotYetUploaded | M::NoThumbnail | M::RemoteTooLarge | M::RemoteFailed(_) => {
                let (status, reason) = (StatusCode::BAD_GATEWAY, "MCS_MEDIA_REQUEST_FAILED");
                chappe_web::Error::new(status, reason, "The media could not be had")
            }
            _ => crate::Error::from(error).0,
        })
    }
}
