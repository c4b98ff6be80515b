//! `/_matrix/identity/api/v1`: what old clients still ask.

mod bulk_lookup;
mod info;
pub(crate) mod internal_info;
mod lookup;
mod ping;

use chappe_identity::Email;
use chappe_web::{Auth, Error, Routes};
use http::{Method, StatusCode};

use crate::{Api, error::Result, v2};

pub(crate) fn routes() -> Routes<Api> {
    let at = |path: &str| format!("/_matrix/identity/api/v1{path}");
    Routes::new()
        .at(&Method::GET, &at(""), Auth::None, ping::handler)
        .at(&Method::GET, &at("/info"), Auth::None, info::handler)
        .at(&Method::GET, &at("/lookup"), Auth::None, lookup::handler)
        .at(&Method::POST, &at("/bulk_lookup"), Auth::None, bulk_lookup::handler)
        .at(&Method::GET, &at("/3pid/getValidated3pid"), Auth::None, v2::threepid::get_validated_3pid::openly)
        .and(v2::shared("/_matrix/identity/api/v1"))
}

/// The address that a request names; only e-mail is known here.
pub(crate) fn email(medium: &str, address: &str) -> Result<Email> {
    if medium != "email" {
        let status = StatusCode::BAD_REQUEST;
        return Err(Error::new(status, "M_UNRECOGNIZED", "Only the medium email is known here").into());
    }
    Ok(Email::parse(address).map_err(chappe_identity::Error::from)?)
}
