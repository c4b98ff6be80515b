//! Identity-service HTTP: one file per endpoint, folders as in the URL.
//!
//! A handler translates, calls one function of `identity`, translates back. Version 1 differs from version 2 in its paths
//! and in what it answers without a token: only what gives nothing away and changes nothing.

mod api;
mod config;
mod confirm_email;
mod error;
mod internal;
mod message;
mod requester;
mod v1;
mod v2;
mod versions;

use chappe_web::{Auth, Routes};
use http::Method;

pub use self::{
    api::{Api, Deps},
    config::{Config, Rates},
};

/// Every endpoint for clients and for other homeservers.
pub fn routes() -> Routes<Api> {
    Routes::new()
        .at(&Method::GET, "/_matrix/identity/versions", Auth::None, versions::handler)
        .at(&Method::GET, chappe_identity::SERVICE_CONFIRM_PATH, Auth::None, confirm_email::show)
        .at(&Method::POST, chappe_identity::SERVICE_CONFIRM_PATH, Auth::None, confirm_email::confirm)
        .and(v1::routes())
        .and(v2::routes())
}

/// What the network's own servers alone may ask. Nobody is asked for a token here: for a listener that nobody else reaches.
pub fn internal_routes() -> Routes<Api> {
    Routes::new()
        .at(&Method::GET, "/_matrix/identity/api/v1/internal-info", Auth::None, v1::internal_info::handler)
        .at(&Method::POST, "/_matrix/identity/internal/bind", Auth::None, internal::bind)
        .at(&Method::POST, "/_matrix/identity/internal/unbind", Auth::None, internal::unbind)
}

/// What the servers of a network tell each other, beside the endpoints of the federation.
pub fn federation_routes() -> Routes<Api> {
    Routes::new().at(&Method::PUT, chappe_identity::MESSAGE_PATH, Auth::None, message::handler)
}
