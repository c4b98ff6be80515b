//! `/_matrix/identity/v2`.

mod account;
mod hash_details;
mod lookup;
mod ping;
mod pubkey;
mod sign_ed25519;
mod store_invite;
mod terms;
pub(crate) mod threepid;
pub(crate) mod validate;

use chappe_web::{Auth, Routes};
use http::Method;

use crate::Api;

const BASE: &str = "/_matrix/identity/v2";

pub(crate) fn routes() -> Routes<Api> {
    let at = |path: &str| format!("{BASE}{path}");
    Routes::new()
        .at(&Method::GET, BASE, Auth::None, ping::handler)
        .at(&Method::POST, &at("/account/register"), Auth::None, account::register::handler)
        .at(&Method::GET, &at("/account"), Auth::Token, account::show::handler)
        .at(&Method::POST, &at("/account/logout"), Auth::Token, account::logout::handler)
        .at(&Method::GET, &at("/terms"), Auth::None, terms::show)
        .at(&Method::POST, &at("/terms"), Auth::Token, terms::accept)
        .at(&Method::GET, &at("/hash_details"), Auth::Token, hash_details::handler)
        .at(&Method::POST, &at("/lookup"), Auth::Token, lookup::handler)
        .at(&Method::GET, &at("/3pid/getValidated3pid"), Auth::Token, threepid::get_validated_3pid::handler)
        .and(shared(BASE))
}

/// The endpoints that version 1 has as well, with the same answers: those that need a token need one there too.
pub(crate) fn shared(base: &str) -> Routes<Api> {
    let at = |path: &str| format!("{base}{path}");
    Routes::new()
        .at(&Method::POST, &at("/validate/email/requestToken"), Auth::Token, validate::email::request_token)
        .at(&Method::POST, &at("/validate/email/submitToken"), Auth::None, validate::email::submit_token)
        .at(
            &Method::GET,
            &at("/validate/email/submitToken"),
            Auth::None,
            validate::email::submit_token_by_link,
        )
        .at(&Method::POST, &at("/validate/msisdn/requestToken"), Auth::None, validate::msisdn::request_token)
        .at(&Method::POST, &at("/validate/msisdn/submitToken"), Auth::None, validate::msisdn::submit_token)
        .at(
            &Method::GET,
            &at("/validate/msisdn/submitToken"),
            Auth::None,
            validate::msisdn::submit_token_by_link,
        )
        .at(&Method::POST, &at("/3pid/bind"), Auth::Token, threepid::bind::handler)
        .at(&Method::POST, &at("/3pid/unbind"), Auth::None, threepid::unbind::handler)
        .at(&Method::POST, &at("/store-invite"), Auth::Token, store_invite::handler)
        .at(&Method::POST, &at("/sign-ed25519"), Auth::Token, sign_ed25519::handler)
        .at(&Method::GET, &at("/pubkey/isvalid"), Auth::None, pubkey::isvalid::handler)
        .at(&Method::GET, &at("/pubkey/ephemeral/isvalid"), Auth::None, pubkey::ephemeral_isvalid::handler)
        .at(&Method::GET, &at("/pubkey/{key_id}"), Auth::None, pubkey::key::handler)
}
