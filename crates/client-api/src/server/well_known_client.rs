//! `GET /.well-known/matrix/client`: where clients find this server.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::rtc_transports::transports;
use crate::{Config, error::Result};

pub(super) async fn handler(State(config): State<Arc<Config>>) -> Result<Json<Value>> {
    if config.public_base_url.is_empty() {
        return Err(chappe_web::Error::not_found("This server does not say where it is").into());
    }
    let mut told = json!({ "m.homeserver": { "base_url": config.public_base_url } });
    if config.identity_service {
        told["m.identity_server"] = json!({ "base_url": config.public_base_url });
    }
    let transports = transports(&config);
    if !transports.is_empty() {
        told["org.matrix.msc4143.rtc_foci"] = json!(transports);
    }
    if let Some(account) = &config.account_page {
        let issuer = format!("{}/", config.public_base_url.trim_end_matches('/'));
        told["org.matrix.msc2965.authentication"] = json!({ "issuer": issuer, "account": account });
    }
    if !config.map_style_url.is_empty() {
        told["m.tile_server"] = json!({ "map_style_url": config.map_style_url });
    }
    Ok(Json(told))
}
