//! `GET /.well-known/matrix/policy_server`: with which key this server signs as a policy server, if it is one.

use axum::{Json, extract::State};
use chappe_rooms::Rooms;
use serde_json::{Value, json};

use crate::error::Result;

pub(super) async fn handler(State(rooms): State<Rooms>) -> Result<Json<Value>> {
    let key = rooms.policy_key();
    let key = key.ok_or_else(|| chappe_web::Error::not_found("This server is no policy server"))?;
    Ok(Json(json!({ "public_keys": { "ed25519": key } })))
}
