//! `GET /v1/users/{userId}/accountdata`: what a user's clients keep here, global and by room.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_store::Position;
use chappe_web::Arguments;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::{Api, Result};

#[derive(Serialize)]
pub(super) struct Response {
    account_data: AccountData,
}

#[derive(Default, Serialize)]
struct AccountData {
    global: BTreeMap<String, Box<RawValue>>,
    rooms: BTreeMap<OwnedRoomId, BTreeMap<String, Box<RawValue>>>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Response>> {
    api.account(&user).await?;
    let mut account_data = AccountData::default();
    for item in api.accounts.account_data_since(&api.accounts.read(), &user, Position(0)).await? {
        match item.room {
            None => account_data.global.insert(item.kind, item.content),
            Some(room) => account_data.rooms.entry(room).or_default().insert(item.kind, item.content),
        };
    }
    Ok(Json(Response { account_data }))
}
