//! This server as its own OAuth 2.0 authorization server (client-server API, "OAuth 2.0 API"): clients, grants, and the
//! pages on which people log in, consent and manage their account.
//!
//! Tokens and devices are those of `accounts`. What clients call answers as the RFCs say; pages are HTML that runs nothing,
//! loads nothing but one style sheet, and takes a form only with a proof that this server showed it to that browser.

mod account;
mod api;
mod auth_metadata;
mod authorize;
mod browser;
mod clients;
mod codes;
mod config;
mod device;
mod device_codes;
mod error;
mod fields;
mod html;
mod link;
mod login;
mod logout;
mod metadata;
mod page;
mod pkce;
mod redirect;
mod register;
mod request;
mod revoke;
mod scope;
mod secrets;
mod sign_up;
mod sso;
mod style;
mod sweep;
mod token;
mod visitor;

use chappe_web::{Auth, Routes};
use http::Method;
use ruma::api::client::discovery::get_authorization_server_metadata;

use self::api::BASE;
pub use self::{
    api::{ACCOUNT_PATH, Deps, LogInCounts, OAuth},
    config::{Config, Rates},
};

/// Every endpoint and page.
pub fn routes() -> Routes<OAuth> {
    let at = |path: &str| format!("{BASE}{path}");
    Routes::new()
        .on::<get_authorization_server_metadata::v1::Request, _>(auth_metadata::handler)
        .at(&Method::POST, &at("/register"), Auth::None, register::handler)
        .at(&Method::POST, &at("/token"), Auth::None, token::handler)
        .at(&Method::POST, &at("/revoke"), Auth::None, revoke::handler)
        .at(&Method::POST, &at("/device"), Auth::None, device::handler)
        .at(&Method::GET, &at("/authorize"), Auth::None, authorize::show)
        .at(&Method::POST, &at("/authorize"), Auth::None, authorize::decide)
        .at(&Method::POST, &at("/login"), Auth::None, login::handler)
        .at(&Method::GET, &at("/sign_up"), Auth::None, sign_up::show)
        .at(&Method::POST, &at("/sign_up"), Auth::None, sign_up::handler)
        .at(&Method::GET, &at("/sso"), Auth::None, sso::depart)
        .at(&Method::GET, &at("/sso/done"), Auth::None, sso::arrive)
        .at(&Method::POST, &at("/logout"), Auth::None, logout::handler)
        .at(&Method::GET, &at("/link"), Auth::None, link::show)
        .at(&Method::POST, &at("/link"), Auth::None, link::decide)
        .at(&Method::GET, ACCOUNT_PATH, Auth::None, account::show)
        .at(&Method::POST, ACCOUNT_PATH, Auth::None, account::act)
        .at(&Method::GET, &at("/style.css"), Auth::None, style::handler)
}

#[cfg(test)]
mod tests;
