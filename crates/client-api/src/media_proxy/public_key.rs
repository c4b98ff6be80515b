//! `GET …/media_proxy/unstable/public_key`: the key that the keys of files may be encrypted for.

use axum::{Json, extract::State};
use chappe_scanner::Scanner;
use serde_json::{Value, json};

use super::refusal::Result;

pub(super) async fn handler(State(scanner): State<Option<Scanner>>) -> Result<Json<Value>> {
    let scanner = scanner.ok_or_else(chappe_web::Error::unrecognized)?;
    Ok(Json(json!({ "public_key": scanner.public_key() })))
}
