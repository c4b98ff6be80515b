//! `GET /admin/whois/{userId}`: where a user's devices were last seen. For the user and for administrators.

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, DeviceInfo};
use chappe_web::Ruma;
use ruma::api::client::admin::get_user_info::v3::Request;
use serde_json::{Map, Value, json};

use super::open_account;
use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    if requester.user() != request.user_id {
        requester.must_be_admin()?;
    }
    open_account(&accounts, &request.user_id).await?;
    let shown = |device: DeviceInfo| {
        let seen = json!({ "ip": device.last_seen_ip, "last_seen": device.last_seen_ms });
        (device.device_id.to_string(), json!({ "sessions": [{ "connections": [seen] }] }))
    };
    let devices = accounts.devices(&request.user_id).await?;
    let devices: Map<String, Value> = devices.into_iter().map(shown).collect();
    Ok(Json(json!({ "user_id": request.user_id, "devices": devices })))
}
