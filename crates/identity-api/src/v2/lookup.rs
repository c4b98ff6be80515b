//! `POST /_matrix/identity/v2/lookup`: whose hashed addresses are.

use axum::{Json, extract::State};
use chappe_identity::{Error as IdentityError, IdentityService};
use chappe_web::Payload;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    requester::Member,
};

#[derive(Deserialize)]
pub(crate) struct Question {
    addresses: Vec<String>,
    algorithm: String,
    pepper: String,
}

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    member: Member,
    Payload(question): Payload<Question>,
) -> Result<Json<Value>> {
    let Question { addresses, algorithm, pepper } = question;
    if addresses.len() <= service.config().service.lookup_addresses {
        member.looks_up(addresses.len())?;
    }
    match service.lookup(&algorithm, &pepper, &addresses).await {
        Ok(mappings) => Ok(Json(json!({ "mappings": mappings }))),
        Err(IdentityError::InvalidPepper) => {
            let Error(error) = IdentityError::InvalidPepper.into();
            Err(error.with("algorithm", "sha256").with("lookup_pepper", service.pepper().await?).into())
        }
        Err(error) => Err(error.into()),
    }
}
