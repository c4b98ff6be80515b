//! Logging in and out.

mod login;
mod login_token;
mod login_types;
mod logout;
mod logout_all;
mod refresh;
mod sso;

use chappe_accounts::{Issued, Refreshing};
use chappe_web::Routes;
use ruma::api::client::session as api;

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<api::get_login_types::v3::Request, _>(login_types::handler)
        .on::<api::login::v3::Request, _>(login::handler)
        .on::<api::get_login_token::v1::Request, _>(login_token::handler)
        .on::<api::refresh_token::v3::Request, _>(refresh::handler)
        .on::<api::logout::v3::Request, _>(logout::handler)
        .on::<api::logout_all::v3::Request, _>(logout_all::handler)
        .and(sso::routes())
}

/// Whether a client said that it can refresh.
pub(crate) fn refreshing(refresh_token: bool) -> Refreshing {
    if refresh_token { Refreshing::Yes } else { Refreshing::No }
}

/// The lifetime of issued tokens, as ruma has it.
pub(crate) fn lifetime(issued: &Issued) -> Option<std::time::Duration> {
    issued.expires_in_ms.map(std::time::Duration::from_millis)
}
