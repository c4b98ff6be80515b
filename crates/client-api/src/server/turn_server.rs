//! `GET /voip/turnServer`: credentials for a relay of calls, good for a while.

use std::sync::Arc;

use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use chappe_world::World;
use ring::hmac;
use serde_json::{Value, json};

use crate::{Config, requester::Requester};

/// The name is the time of expiry and the user, the password its HMAC-SHA1: what coturn's `use-auth-secret` checks.
pub(super) async fn handler(
    State(config): State<Arc<Config>>,
    State(world): State<World>,
    requester: Requester,
) -> Json<Value> {
    let Some(turn) = &config.turn else { return Json(json!({})) };
    let username = format!("{}:{}", world.now() / 1000 + turn.lifetime_s, requester.user());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, turn.secret.as_bytes());
    let password = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
    Json(json!({ "username": username, "password": password, "uris": turn.uris, "ttl": turn.lifetime_s }))
}
