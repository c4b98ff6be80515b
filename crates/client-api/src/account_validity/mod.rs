//! `/_synapse/client/email_account_validity/…`: renewing accounts that end, as clients of Tchap call it, and under its older
//! paths.

mod admin;
mod renew;
mod send_mail;

use chappe_identity::{RENEW_PATH, Renewals};
use chappe_web::{Auth, Routes};
use http::Method;

use crate::{Api, error::Result};

/// Where clients ask for a mail, and where they did before.
const SEND_MAIL: [&str; 2] = [
    "/_synapse/client/email_account_validity/send_mail",
    "/_matrix/client/unstable/account_validity/send_mail",
];
/// Where mails of Synapse lead, which people may still have.
const SYNAPSE_RENEW: &str = "/_synapse/client/email_account_validity/renew";
const ADMIN: &str = "/_synapse/client/email_account_validity/admin";

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .at(&Method::POST, SEND_MAIL[0], Auth::Token, send_mail::handler)
        .at(&Method::POST, SEND_MAIL[1], Auth::Token, send_mail::handler)
        .at(&Method::GET, RENEW_PATH, Auth::TokenOptional, renew::handler)
        .at(&Method::GET, SYNAPSE_RENEW, Auth::TokenOptional, renew::handler)
        .at(&Method::POST, ADMIN, Auth::Token, admin::handler)
}

/// 404 `M_UNRECOGNIZED` where accounts do not end.
fn must_be_on(renewals: &Renewals) -> Result<()> {
    if renewals.is_on() { Ok(()) } else { Err(chappe_web::Error::unrecognized().into()) }
}
