//! `PUT`, `GET` and `DELETE /room_keys/keys[/{roomId}[/{sessionId}]]`: the keys in a backup.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_accounts::{Accounts, BackupKey, BackupKeysChange, BackupKeysMap};
use chappe_web::Ruma;
use futures_util::stream::unfold;
use http::header;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    api::client::backup::{
        KeyBackupData, add_backup_keys, add_backup_keys_for_room, add_backup_keys_for_session,
        delete_backup_keys, delete_backup_keys_for_room, delete_backup_keys_for_session, get_backup_keys,
        get_backup_keys_for_room, get_backup_keys_for_session,
    },
    serde::Raw,
};
use serde_json::{Value, json, value::RawValue};

use crate::{error::Result, requester::Requester};

/// Keys read at once for an answer.
const PAGE: usize = 50;

fn unwrapped(sessions: BTreeMap<String, Raw<KeyBackupData>>) -> BTreeMap<String, Box<RawValue>> {
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
) -> Result<Response> {
    written(accounts, &requester, request.version, None).await
}

pub(super) async fn of_room(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_keys_for_room::v3::Request>,
) -> Result<Response> {
    written(accounts, &requester, request.version, Some(request.room_id)).await
}

pub(super) async fn of_session(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_keys_for_session::v3::Request>,
) -> Result<Json<Box<RawValue>>> {
    let (version, room, session) = (&request.version, &request.room_id, &request.session_id);
    let key = accounts.backup_key(requester.user(), version, room, session).await?;
    Ok(Json(key.ok_or_else(|| chappe_web::Error::not_found("No such key"))?))
}

/// An answer with keys, read as it is sent: a backup is larger than what one request may hold in memory.
async fn written(
    accounts: Accounts,
    requester: &Requester,
    version: String,
    room: Option<OwnedRoomId>,
) -> Result<Response> {
    let user = requester.user().to_owned();
    let mut reading = Reading { accounts, user, version, room, last: None, first: None };
    reading.first = Some(reading.page().await?);
    let pieces = unfold(Some(reading), async |reading| match reading?.piece().await {
        Ok((text, rest)) => Some((Ok(text), rest)),
        Err(error) => Some((Err(error), None)),
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response())
}

/// Keys on their way into an answer.
struct Reading {
    accounts: Accounts,
    user: OwnedUserId,
    version: String,
    /// The only room that is wanted.
    room: Option<OwnedRoomId>,
    /// The last key that was written.
    last: Option<BackupKey>,
    /// The first page, until it is written.
    first: Option<Vec<BackupKey>>,
}

impl Reading {
    async fn page(&self) -> Result<Vec<BackupKey>, chappe_accounts::Error> {
        let (room, behind) = (self.room.as_deref(), self.last.as_ref());
        self.accounts.backup_keys(&self.user, &self.version, room, behind, PAGE).await
    }

    /// What is sent next, and what is left then.
    async fn piece(mut self) -> Result<(String, Option<Self>), chappe_accounts::Error> {
        let mut text = String::new();
        let page = match self.first.take() {
            Some(first) => {
                text.push_str(if self.room.is_some() { r#"{"sessions":{"# } else { r#"{"rooms":{"# });
                first
            }
            None => self.page().await?,
        };
        let more = page.len() == PAGE;
        for key in page {
            self.write(&mut text, key);
        }
        if more {
            return Ok((text, Some(self)));
        }
        text.push_str(if self.room.is_none() && self.last.is_some() { "}}}}" } else { "}}" });
        Ok((text, None))
    }

    fn write(&mut self, text: &mut String, key: BackupKey) {
        let same_room = self.last.as_ref().is_some_and(|last| last.room == key.room);
        if same_room {
            text.push(',');
        } else if self.room.is_none() {
            text.push_str(if self.last.is_some() { "}}," } else { "" });
            text.extend([&*json!(key.room).to_string(), r#":{"sessions":{"#]);
        }
        text.extend([&*json!(key.session).to_string(), ":", key.key.get()]);
        self.last = Some(key);
    }
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
