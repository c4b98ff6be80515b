//! `POST …/msisdn/requestToken`: have a phone number validated. This server sends no text messages, and says so.
//!
//! The request is judged first, so that a client learns of a number that is none; that a number could be somebody's is
//! never told, as no account here has one.

use axum::extract::State;
use chappe_web::{Error, Origin, Ruma};
use http::StatusCode;
use ruma::api::client::account::{
    request_3pid_management_token_via_msisdn as threepid_api,
    request_password_change_token_via_msisdn as password_api,
    request_registration_token_via_msisdn as registration_api,
};

use crate::{error::Result, rates::Limits};

fn answer<T>(limits: &Limits, origin: Origin, country: &str, number: &str) -> Result<T> {
    limits.ip("registration", origin, |rates| rates.registration)?;
    if !is_country(country) || !is_number(number) {
        return Err(Error::invalid_param("This is not a phone number").into());
    }
    let sentence = "Phone numbers cannot be validated on this server";
    Err(Error::new(StatusCode::BAD_REQUEST, "M_THREEPID_MEDIUM_NOT_SUPPORTED", sentence).into())
}

/// Two letters, as ISO 3166 has them.
fn is_country(country: &str) -> bool {
    country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// Up to 15 digits, as E.164 has them, with what people put between them.
fn is_number(number: &str) -> bool {
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let rest = number.strip_prefix('+').unwrap_or(number);
    (3..=15).contains(&digits)
        && number.len() <= 32
        && rest.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '.' | '-' | '/' | '(' | ')'))
}

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident: $api:ident;)*) => {$(
        $(#[$doc])*
        pub(super) async fn $name(
            State(limits): State<Limits>,
            origin: Origin,
            Ruma(request): Ruma<$api::v3::Request>,
        ) -> Result<Ruma<$api::v3::Response>> {
            answer(&limits, origin, &request.country, &request.phone_number)
        }
    )*};
}

endpoints! {
    /// `POST /register/msisdn/requestToken`.
    registration: registration_api;
    /// `POST /account/password/msisdn/requestToken`.
    password: password_api;
    /// `POST /account/3pid/msisdn/requestToken`.
    threepid: threepid_api;
}

#[cfg(test)]
mod tests {
    use super::{is_country, is_number};

    #[test]
    fn numbers_are_numbers() {
        for number in ["0612345678", "+33 6 12 34 56 78", "(01) 23-45.67/89"] {
            assert!(is_number(number), "{number}");
        }
        for number in ["", "12", "06 12 34 56 78 90 12 34 56", "06a", "6+33", "٠٦١٢٣٤٥", "1\n2345"] {
            assert!(!is_number(number), "{number}");
        }
        assert!(is_country("FR") && is_country("gb"));
        assert!(!is_country("") && !is_country("FRA") && !is_country("É"));
    }
}
