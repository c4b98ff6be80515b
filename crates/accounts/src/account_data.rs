//! Account data, global and by room, tags and the list of ignored users: a stream by position.

use std::collections::BTreeSet;

use chappe_store::{Position, Reader};
use ruma::{OwnedUserId, RoomId, OwnedRoomId, UserId};
use serde_json::value::RawValue;

use crate::{Accounts, Error, soon};

/// Which account data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// For the whole account.
    Global,
    /// For one room.
    Room(&'a RoomId),
}

/// One item of account data.
#[derive(Clone, Debug)]
pub struct AccountDataItem {
    /// Its room, or `None` for the whole account.
    pub room: Option<OwnedRoomId>,
    /// Its type.
    pub kind: String,
    /// Its content.
    pub content: Box<RawValue>,
    /// When it was changed.
    pub position: Position,
}

impl Accounts {
    /// Sets an item. `m.push_rules` and `m.fully_read` are not for this call: [`Error::Forbidden`]. Content must be an object.
    pub async fn set_account_data(&self, user: &UserId, scope: Scope<'_>, kind: &str, content: &RawValue) -> Result<(), Error> { soon() }
    /// As [`Accounts::set_account_data`], without its reserved types: for the server's own items such as `m.fully_read`.
    pub async fn put_account_data(&self, user: &UserId, scope: Scope<'_>, kind: &str, content: &RawValue) -> Result<(), Error> { soon() }
    /// The content of an item. `m.push_rules` answers the ruleset, also when it was never changed.
    pub async fn account_data(&self, reader: &Reader<'_>, user: &UserId, scope: Scope<'_>, kind: &str) -> Result<Option<Box<RawValue>>, Error> { soon() }
    /// All items of a scope; for [`Scope::Global`] `m.push_rules` included.
    pub async fn account_data_all(&self, reader: &Reader<'_>, user: &UserId, scope: Scope<'_>) -> Result<Vec<AccountDataItem>, Error> { soon() }
    /// The items, global and of all rooms, that changed after a position, in the order of change.
    pub async fn account_data_since(&self, reader: &Reader<'_>, user: &UserId, after: Position) -> Result<Vec<AccountDataItem>, Error> { soon() }
    /// Changes the tags of a room: `change` edits the map of tags (`m.tag`'s `tags`).
    pub async fn update_tags(&self, user: &UserId, room: &RoomId, change: impl Fn(&mut serde_json::Map<String, serde_json::Value>) + Send) -> Result<(), Error> { soon() }
    /// The tags of a room.
    pub async fn tags(&self, user: &UserId, room: &RoomId) -> Result<serde_json::Map<String, serde_json::Value>, Error> { soon() }
    /// Whom a user ignores.
    pub async fn ignored_users(&self, reader: &Reader<'_>, user: &UserId) -> Result<BTreeSet<OwnedUserId>, Error> { soon() }
}
