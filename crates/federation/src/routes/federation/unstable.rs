//! `/_matrix/federation/unstable`: the directory of the network. Where there is none, these are not known.

pub(in crate::routes) mod user_directory;
pub(in crate::routes) mod users_info;

use axum::extract::FromRequestParts;
use chappe_web::Error;
use http::request::Parts;

use crate::Federation;

/// There is a directory of the network; otherwise 404 `M_UNRECOGNIZED`, whoever asks.
pub(in crate::routes) struct Networked;

impl FromRequestParts<Federation> for Networked {
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, federation: &Federation) -> Result<Self, Error> {
        federation.rooms().neighbours().map(|_| Self).ok_or_else(Error::unrecognized)
    }
}
