//! `GET /.well-known/matrix/support`: whom to turn to.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

use crate::{Config, error::Result};

pub(super) async fn handler(State(config): State<Arc<Config>>) -> Result<Json<Value>> {
    if config.support_contacts.is_empty() && config.support_page.is_empty() {
        return Err(chappe_web::Error::not_found("No contacts are published").into());
    }
    let mut answer = Map::new();
    if !config.support_page.is_empty() {
        answer.insert("support_page".to_owned(), json!(config.support_page));
    }
    let contacts = config.support_contacts.iter().map(|contact| {
        let mut entry = Map::from_iter([("role".to_owned(), json!(contact.role))]);
        entry.extend(contact.email_address.as_ref().map(|email| ("email_address".to_owned(), json!(email))));
        entry.extend(contact.matrix_id.as_ref().map(|user| ("matrix_id".to_owned(), json!(user))));
        Value::Object(entry)
    });
    answer.insert("contacts".to_owned(), contacts.collect());
    Ok(Json(Value::Object(answer)))
}
