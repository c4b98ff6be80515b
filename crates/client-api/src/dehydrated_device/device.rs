//! `PUT`, `GET` and `DELETE /dehydrated_device`.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Request, State},
};
use chappe_accounts::{Accounts, Dehydrating, KeyUpload};
use chappe_web::body_bytes;
use ruma::{
    OwnedDeviceId, OwnedOneTimeKeyId,
    encryption::{DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{error::Result, rates::Limits, requester::Requester};

#[derive(Deserialize)]
struct Body {
    device_id: OwnedDeviceId,
    device_data: Box<RawValue>,
    initial_device_display_name: Option<String>,
    device_keys: Option<Raw<DeviceKeys>>,
    #[serde(default)]
    one_time_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    #[serde(default)]
    fallback_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
}

pub(super) async fn put(
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    requester: Requester,
    request: Request,
) -> Result<Json<Value>> {
    limits.device(&requester)?;
    let (parts, body) = request.into_parts();
    let bytes = body_bytes(&parts, body).await?;
    let body: Body =
        serde_json::from_slice(&bytes).map_err(|error| chappe_web::Error::unreadable_json(&error))?;
    let new = Dehydrating {
        device: body.device_id,
        data: body.device_data,
        name: body.initial_device_display_name,
        keys: KeyUpload {
            device_keys: body.device_keys,
            one_time_keys: body.one_time_keys,
            fallback_keys: body.fallback_keys,
        },
    };
    accounts.dehydrate(requester.user(), &new).await?;
    Ok(Json(json!({ "device_id": new.device })))
}

pub(super) async fn show(State(accounts): State<Accounts>, requester: Requester) -> Result<Json<Value>> {
    let found = accounts.dehydrated(requester.user()).await?;
    let (device, data) = found.ok_or_else(|| chappe_web::Error::not_found("No dehydrated device"))?;
    Ok(Json(json!({ "device_id": device, "device_data": data })))
}

pub(super) async fn delete(State(accounts): State<Accounts>, requester: Requester) -> Result<Json<Value>> {
    let device = accounts.delete_dehydrated(requester.user()).await?;
    Ok(Json(json!({ "device_id": device })))
}
