//! `/_matrix/identity/v2/validate/msisdn`: this service sends no text messages, and says so.

use chappe_web::Error;
use http::StatusCode;

use crate::error::{Error as ApiError, Result};

/// `POST requestToken`.
pub(crate) async fn request_token() -> Result<()> {
    let error = "This identity service sends no text messages: phone numbers cannot be validated";
    Err(Error::new(StatusCode::BAD_REQUEST, "M_THREEPID_MEDIUM_NOT_SUPPORTED", error).into())
}

/// `POST submitToken`.
pub(crate) async fn submit_token() -> Result<()> {
    Err(no_session())
}

/// `GET submitToken`.
pub(crate) async fn submit_token_by_link() -> Result<()> {
    Err(no_session())
}

fn no_session() -> ApiError {
    let error = "No phone number is being validated: this identity service sends no text messages";
    Error::new(StatusCode::NOT_FOUND, "M_NO_VALID_SESSION", error).into()
}
