//! `GET /v1/whois/{userId}`: when and from where a user's devices were last seen.

use axum::{Json, extract::State};
use chappe_accounts::DeviceInfo;
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use crate::api::{Api, Result};

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let shown = |device: DeviceInfo| {
        let seen = json!({ "ip": device.last_seen_ip, "last_seen": device.last_seen_ms, "user_agent": null });
        (device.device_id.to_string(), json!({ "sessions": [{ "connections": [seen] }] }))
    };
    let devices: Map<String, Value> = api.accounts.devices(&user).await?.into_iter().map(shown).collect();
    Ok(Json(json!({ "user_id": user, "devices": devices })))
}
