//! `POST /_matrix/identity/api/v1/bulk_lookup`: whose many addresses are, where an operator still answers this.

use axum::{Json, extract::State};
use chappe_identity::{Email, IdentityService};
use chappe_web::{Error, Payload};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, requester::Anybody};

#[derive(Deserialize)]
pub(crate) struct Question {
    /// Pairs of medium and address.
    threepids: Vec<(String, String)>,
}

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    anybody: Anybody,
    Payload(question): Payload<Question>,
) -> Result<Json<Value>> {
    if !service.config().service.legacy_lookups {
        return Err(Error::unrecognized().into());
    }
    if question.threepids.len() > service.config().service.lookup_addresses {
        return Err(Error::invalid_param("Too many addresses at once").into());
    }
    anybody.looks_up(question.threepids.len())?;
    let emails = question.threepids.iter().filter(|(medium, _)| medium == "email");
    let asked: Vec<(&String, Email)> =
        emails.filter_map(|(_, address)| Some((address, Email::parse(address).ok()?))).collect();
    let emails: Vec<Email> = asked.iter().map(|(_, email)| email.clone()).collect();
    let users = service.users_of(&emails).await?;
    let found =
        asked.iter().zip(users).filter_map(|((address, _), user)| Some(json!(["email", address, user?])));
    Ok(Json(json!({ "threepids": found.collect::<Vec<_>>() })))
}
