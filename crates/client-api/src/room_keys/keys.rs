//! `PUT`, `GET` and `DELETE /room_keys/keys[/{roomId}[/{sessionId}]]`: the keys in a backup.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, BackupKeysChange, BackupKeysMap};
use chappe_web::Ruma;
use ruma::{
    OwnedRoomId, RoomId,
    api::client::backup::{
        KeyBackupData, add_backup_keys, add_backup_keys_for_room, add_backup_keys_for_session,
        delete_backup_keys, delete_backup_keys_for_room, delete_backup_keys_for_session, get_backup_keys,
        get_backup_keys_for_room, get_backup_keys_for_session,
    },
    serde::Raw,
};
use serde_json::{Value, json, value::RawValue};

use crate::{error::Result, requester::Requester};

type Sessions = BTreeMap<String, Box<RawValue>>;

fn unwrapped(sessions: BTreeMap<String, Raw<KeyBackupData>>) -> Sessions {
    sessions.into_iter().map(|(id, data)| (id, data.into_json())).collect()
}

async fn put(
    accounts: &Accounts,
    requester: &Requester,
    version: &str,
    keys: BackupKeysMap,
) -> Result<Json<Value>> {
    Ok(changed(&accounts.put_backup_keys(requester.user(), version, keys).await?))
}

fn changed(change: &BackupKeysChange) -> Json<Value> {
    Json(json!({ "count": change.count, "etag": change.etag }))
}

pub(super) async fn add(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<add_backup_keys::v3::Request>,
) -> Result<Json<Value>> {
    let rooms = request.rooms.into_iter();
    let keys = rooms.map(|(room, backup)| (room, unwrapped(backup.sessions))).collect();
    put(&accounts, &requester, &request.version, keys).await
}

pub(super) async fn add_for_room(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<add_backup_keys_for_room::v3::Request>,
) -> Result<Json<Value>> {
    let keys = BTreeMap::from([(request.room_id, unwrapped(request.sessions))]);
    put(&accounts, &requester, &request.version, keys).await
}

pub(super) async fn add_for_session(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<add_backup_keys_for_session::v3::Request>,
) -> Result<Json<Value>> {
    let session = BTreeMap::from([(request.session_id, request.session_data.into_json())]);
    put(&accounts, &requester, &request.version, BTreeMap::from([(request.room_id, session)])).await
}

pub(super) async fn all(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_keys::v3::Request>,
) -> Result<Json<Value>> {
    let keys = accounts.backup_keys(requester.user(), &request.version, None, None).await?;
    let rooms: BTreeMap<OwnedRoomId, Value> =
        keys.into_iter().map(|(room, sessions)| (room, json!({ "sessions": sessions }))).collect();
    Ok(Json(json!({ "rooms": rooms })))
}

pub(super) async fn of_room(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_keys_for_room::v3::Request>,
) -> Result<Json<Value>> {
    let room = &request.room_id;
    let mut keys = accounts.backup_keys(requester.user(), &request.version, Some(room), None).await?;
    Ok(Json(json!({ "sessions": keys.remove(room).unwrap_or_default() })))
}

pub(super) async fn of_session(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_keys_for_session::v3::Request>,
) -> Result<Json<Box<RawValue>>> {
    let (room, session) = (&request.room_id, request.session_id.as_str());
    let keys = accounts.backup_keys(requester.user(), &request.version, Some(room), Some(session)).await?;
    let key = keys.into_values().flat_map(Sessions::into_values).next();
    Ok(Json(key.ok_or_else(|| chappe_web::Error::not_found("No such key"))?))
}

async fn remove(
    accounts: &Accounts,
    requester: &Requester,
    version: &str,
    (room, session): (Option<&RoomId>, Option<&str>),
) -> Result<Json<Value>> {
    Ok(changed(&accounts.delete_backup_keys(requester.user(), version, room, session).await?))
}

pub(super) async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<delete_backup_keys::v3::Request>,
) -> Result<Json<Value>> {
    remove(&accounts, &requester, &request.version, (None, None)).await
}

pub(super) async fn delete_for_room(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<delete_backup_keys_for_room::v3::Request>,
) -> Result<Json<Value>> {
    remove(&accounts, &requester, &request.version, (Some(&request.room_id), None)).await
}

pub(super) async fn delete_for_session(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<delete_backup_keys_for_session::v3::Request>,
) -> Result<Json<Value>> {
    let what = (Some(&*request.room_id), Some(request.session_id.as_str()));
    remove(&accounts, &requester, &request.version, what).await
}
