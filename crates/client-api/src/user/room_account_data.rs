//! `PUT`, `GET` and `DELETE /user/{userId}/rooms/{roomId}/account_data/{type}`.

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, Scope};
use chappe_web::{Arguments, Ruma};
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::client::config::{get_room_account_data, set_room_account_data},
};
use serde_json::{Value, json, value::RawValue};

use crate::{error::Result, requester::Requester};

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<set_room_account_data::v3::Request>,
) -> Result<Ruma<set_room_account_data::v3::Response>> {
    requester.must_be(&request.user_id)?;
    let (kind, scope) = (request.event_type.to_string(), Scope::Room(&request.room_id));
    accounts.set_account_data(requester.user(), scope, &kind, request.data.json()).await?;
    Ok(Ruma(set_room_account_data::v3::Response::new()))
}

pub(super) async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Arguments((user, room, kind)): Arguments<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Json<Value>> {
    requester.must_be(&user)?;
    accounts.delete_account_data(requester.user(), Scope::Room(&room), &kind).await?;
    Ok(Json(json!({})))
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_room_account_data::v3::Request>,
) -> Result<Json<Box<RawValue>>> {
    requester.must_be(&request.user_id)?;
    let (kind, scope) = (request.event_type.to_string(), Scope::Room(&request.room_id));
    let content = accounts.account_data(&accounts.read(), requester.user(), scope, &kind).await?;
    Ok(Json(content.ok_or_else(|| chappe_web::Error::not_found("No such account data"))?))
}
