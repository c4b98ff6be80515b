//! `GET /v1/threepid/{medium}/users/{address}` and `GET /v1/auth_providers/{provider}/users/{externalId}`: whose an
//! address or an identity elsewhere is.

use axum::{Json, extract::State};
use chappe_identity::Email;
use chappe_web::Arguments;
use ruma::thirdparty::Medium;
use serde_json::{Value, json};

use crate::api::{Api, Result};

pub(super) async fn by_threepid(
    State(api): State<Api>,
    Arguments((medium, address)): Arguments<(String, String)>,
) -> Result<Json<Value>> {
    let medium = Medium::from(medium);
    let address = canonical(&medium, address)?;
    let found = api.accounts.user_by_threepid(&medium, &address).await?;
    let user = found.ok_or_else(|| chappe_web::Error::not_found("User not found"))?;
    Ok(Json(json!({ "user_id": user })))
}

/// The provider is named by its issuer URL.
pub(super) async fn by_external_id(
    State(api): State<Api>,
    Arguments((issuer, subject)): Arguments<(String, String)>,
) -> Result<Json<Value>> {
    let found = api.accounts.user_by_external_account(&issuer, &subject).await?;
    let user = found.ok_or_else(|| chappe_web::Error::not_found("User not found"))?;
    Ok(Json(json!({ "user_id": user })))
}

/// An address as it is stored.
pub(in crate::api) fn canonical(medium: &Medium, address: String) -> Result<String, chappe_web::Error> {
    match medium {
        Medium::Email => match Email::parse(&address) {
            Ok(email) => Ok(email.as_str().to_owned()),
            Err(error) => Err(chappe_web::Error::invalid_param(error.to_string())),
        },
        Medium::Msisdn if !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(address)
        }
        _ => Err(chappe_web::Error::invalid_param("Not an e-mail address or phone number")),
    }
}
