//! `POST …/email/requestToken`: have an address validated by mail, for signing up, a new password or a new address.

use axum::{extract::State, http::HeaderMap};
use chappe_identity::{Identity, Language, Purpose, TokenRequest};
use chappe_web::{Origin, Ruma};
use ruma::{
    ClientSecret, OwnedSessionId, UInt,
    api::client::account::{
        request_3pid_management_token_via_email as threepid_api,
        request_password_change_token_via_email as password_api,
        request_registration_token_via_email as registration_api,
    },
};

use crate::error::Result;

/// What the three requests have in common.
struct Wanted<'a> {
    email: &'a str,
    client_secret: &'a ClientSecret,
    send_attempt: UInt,
    next_link: Option<&'a str>,
}

async fn ask(
    identity: &Identity,
    purpose: Purpose,
    (origin, headers): (Origin, &HeaderMap),
    wanted: Wanted<'_>,
) -> Result<OwnedSessionId> {
    let language = headers.get(http::header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let request = TokenRequest {
        address: wanted.email,
        client_secret: wanted.client_secret,
        send_attempt: wanted.send_attempt.into(),
        next_link: wanted.next_link,
        ip: Some(origin.0),
        language: language.and_then(Language::accepted),
    };
    Ok(identity.request_token(purpose, request).await?)
}

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident: $api:ident, $purpose:ident;)*) => {$(
        $(#[$doc])*
        pub(super) async fn $name(
            State(identity): State<Identity>,
            origin: Origin,
            headers: HeaderMap,
            Ruma(request): Ruma<$api::v3::Request>,
        ) -> Result<Ruma<$api::v3::Response>> {
            let wanted = Wanted {
                email: &request.email,
                client_secret: &request.client_secret,
                send_attempt: request.send_attempt,
                next_link: request.next_link.as_deref(),
            };
            let sid = ask(&identity, Purpose::$purpose, (origin, &headers), wanted).await?;
            Ok(Ruma($api::v3::Response::new(sid)))
        }
    )*};
}

endpoints! {
    /// `POST /register/email/requestToken`.
    registration: registration_api, Registration;
    /// `POST /account/password/email/requestToken`.
    password: password_api, PasswordReset;
    /// `POST /account/3pid/email/requestToken`.
    threepid: threepid_api, AddToAccount;
}
