//! `GET /_matrix/identity/v2/3pid/getValidated3pid`: which address a session has validated.

use axum::{Json, extract::State};
use chappe_identity::{Identity, Purpose};
use chappe_web::Parameters;
use ruma::{OwnedClientSecret, OwnedSessionId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, requester::Member};

#[derive(Deserialize)]
pub(crate) struct Question {
    sid: OwnedSessionId,
    client_secret: OwnedClientSecret,
}

pub(crate) async fn handler(
    State(identity): State<Identity>,
    _: Member,
    Parameters(question): Parameters<Question>,
) -> Result<Json<Value>> {
    told(&identity, &question).await
}

/// The same in version 1: session and secret are the proof, and homeservers of old have no token.
pub(crate) async fn openly(
    State(identity): State<Identity>,
    Parameters(question): Parameters<Question>,
) -> Result<Json<Value>> {
    told(&identity, &question).await
}

async fn told(identity: &Identity, question: &Question) -> Result<Json<Value>> {
    let proof = identity.validated(Purpose::Bind, &question.sid, &question.client_secret).await?;
    Ok(Json(json!({ "medium": "email", "address": proof.address, "validated_at": proof.validated_at })))
}
