//! `POST /v1/media/quarantine/{serverName}/{mediaId}`, `/v1/media/unquarantine/…`, `/v1/room/{roomId}/media/quarantine`,
//! `/v1/user/{userId}/media/quarantine`: bytes that are given to nobody any more.

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::{Value, json};

use crate::{
    api::{Administrator, Api, Result, v1::must_know},
    run::quarantine_room,
};

pub(super) async fn one(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments((server, id)): Arguments<(OwnedServerName, String)>,
) -> Result<Json<Value>> {
    api.media.quarantine(&server, &id, administrator.user()).await?;
    Ok(Json(json!({})))
}

pub(super) async fn lift(
    State(api): State<Api>,
    Arguments((server, id)): Arguments<(OwnedServerName, String)>,
) -> Result<Json<Value>> {
    api.media.unquarantine(&server, &id).await?;
    Ok(Json(json!({})))
}

pub(super) async fn of_room(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<OwnedRoomId>,
) -> Result<Json<Value>> {
    must_know(&api, &room).await?;
    let count = quarantine_room(&api.rooms, &api.media, &room, administrator.user()).await?;
    Ok(Json(json!({ "num_quarantined": count })))
}

pub(super) async fn of_user(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let mut count = 0;
    for info in api.media.of_user(&user).await? {
        count += usize::from(api.media.quarantine(&info.server, &info.id, administrator.user()).await?);
    }
    Ok(Json(json!({ "num_quarantined": count })))
}
