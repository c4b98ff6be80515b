//! `GET` and `POST /_matrix/identity/v2/terms`: the policies, and that they are accepted.

use axum::{Json, extract::State};
use chappe_identity::{IdentityService, Policy};
use chappe_web::{Error, Payload};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{error::Result, requester::Bearer};

/// URLs in one request.
const MOST: usize = 100;

#[derive(Deserialize)]
pub(crate) struct Accepts {
    user_accepts: Vec<String>,
}

pub(crate) async fn show(State(service): State<IdentityService>) -> Json<Value> {
    let shown = |policy: &Policy| {
        let texts = policy
            .texts
            .iter()
            .map(|(language, text)| (language.clone(), json!({ "name": text.name, "url": text.url })));
        let mut shown: Map<String, Value> = texts.collect();
        shown.insert("version".to_owned(), json!(policy.version));
        Value::Object(shown)
    };
    let policies = &service.config().service.policies;
    let policies: Map<String, Value> =
        policies.iter().map(|(name, policy)| (name.clone(), shown(policy))).collect();
    Json(json!({ "policies": policies }))
}

pub(crate) async fn accept(
    State(service): State<IdentityService>,
    bearer: Bearer,
    Payload(accepts): Payload<Accepts>,
) -> Result<Json<Value>> {
    if accepts.user_accepts.len() > MOST {
        return Err(Error::invalid_param("Too many policies at once").into());
    }
    service.accept(&bearer.user, &accepts.user_accepts).await?;
    Ok(Json(json!({})))
}
