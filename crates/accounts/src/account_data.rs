//! Account data, global and by room, tags and the list of ignored users: a stream by position.

use std::collections::BTreeSet;

use chappe_store::{
    Direction, LogEntry, Position, Reader, Tx,
    accounts::Positioned,
    accounts_data::{AccountData, AccountDataChanges, AccountDataCounts},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value, value::RawValue};

use crate::{Accounts, Error, push_rules::PUSH_RULES, retry::retry};

/// Bytes of an item's type.
const KIND_BYTES: usize = 255;
/// The content that says that there is none: whoever sets it deletes the item (MSC3391). The row stays, so that devices
/// hear of it, and counts as an item. Setting it is told of even where nothing was: clients wait to be told.
const DELETED: &str = "{}";
/// The type of the tags of a room.
pub(crate) const TAGS: &str = "m.tag";
const IGNORED: &str = "m.ignored_user_list";

/// Which account data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// For the whole account.
    Global,
    /// For one room.
    Room(&'a RoomId),
}

impl Scope<'_> {
    fn key(self) -> String {
        match self {
            Self::Global => String::new(),
            Self::Room(room) => room.to_string(),
        }
    }
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
    /// Deletes an item, if there is one. `m.push_rules` and `m.fully_read` are not for this call: [`Error::Managed`].
    pub async fn delete_account_data(
        &self,
        user: &UserId,
        scope: Scope<'_>,
        kind: &str,
    ) -> Result<(), Error> {
        check_unmanaged(kind)?;
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            self.draft_account_data_end(&reader, &mut tx, user, scope, kind).await?;
            drop(reader);
            if !tx.is_empty() {
                self.store().commit(tx).await?;
            }
            Ok(())
        })
    }

    /// Sets an item; setting it to an empty object deletes it. Devices are told also where it was the same before.
    /// `m.push_rules` and `m.fully_read` are not for this call: [`Error::Managed`]. Content must be an object.
    pub async fn set_account_data(
        &self,
        user: &UserId,
        scope: Scope<'_>,
        kind: &str,
        content: &RawValue,
    ) -> Result<(), Error> {
        check_unmanaged(kind)?;
        self.put_account_data(user, scope, kind, content).await
    }

    /// As [`Accounts::set_account_data`], without its reserved types: for the server's own items such as
    /// `m.fully_read`.
    pub async fn put_account_data(
        &self,
        user: &UserId,
        scope: Scope<'_>,
        kind: &str,
        content: &RawValue,
    ) -> Result<(), Error> {
        if !content.get().trim_start().starts_with('{') {
            return Err(Error::BadJson("account data is an object".to_owned()));
        }
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            self.draft_account_data(&reader, &mut tx, user, scope, kind, content.get()).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Adds the deletion of an item to a transaction, if there is one. Conflict if the item is changed meanwhile.
    pub(crate) async fn draft_account_data_end(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
        scope: Scope<'_>,
        kind: &str,
    ) -> Result<(), Error> {
        if kind.len() > KIND_BYTES {
            return Err(Error::TooLarge("account data"));
        }
        let key = (user.to_owned(), scope.key(), kind.to_owned());
        let old = reader.get::<AccountData>(&key).await?;
        if old.as_ref().is_none_or(|old| is_deleted(&old.value)) {
            tx.expect::<AccountData>(&key, old.as_ref());
            return Ok(());
        }
        self.draft_account_data(reader, tx, user, scope, kind, DELETED).await
    }

    /// Adds the change of an item to a transaction, for what has to be one commit with something else. Conflict if the
    /// item is changed meanwhile.
    #[expect(clippy::too_many_arguments, reason = "a row has a user, a scope, a type and a content")]
    pub async fn draft_account_data(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
        scope: Scope<'_>,
        kind: &str,
        content: &str,
    ) -> Result<(), Error> {
        let limits = &self.config().limits;
        if kind.len() > KIND_BYTES || content.len() > limits.account_data_bytes {
            return Err(Error::TooLarge("account data"));
        }
        let content = if is_empty(content) { DELETED } else { content };
        let key = (user.to_owned(), scope.key(), kind.to_owned());
        let old = reader.get::<AccountData>(&key).await?;
        tx.expect::<AccountData>(&key, old.as_ref());
        if let Some(old) = old {
            let change = (key.0.clone(), old.position.0, key.1.clone(), key.2.clone());
            tx.delete::<AccountDataChanges>(&change);
        } else {
            if reader.get::<AccountDataCounts>(&key.0).await?.unwrap_or(0) >= limits.account_data_items {
                return Err(Error::TooMany("account data items"));
            }
            tx.add::<AccountDataCounts>(&key.0, 1);
        }
        tx.put_stamped::<AccountData>(&key, content.as_bytes());
        tx.put_at_position::<AccountDataChanges>(&key.0, &(key.1.clone(), key.2.clone()), &());
        tx.log(LogEntry::AccountData { user: key.0 });
        Ok(())
    }

    /// The content of an item. `m.push_rules` answers the ruleset, also when it was never changed.
    pub async fn account_data(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        scope: Scope<'_>,
        kind: &str,
    ) -> Result<Option<Box<RawValue>>, Error> {
        if scope == Scope::Global && kind == PUSH_RULES {
            return self.push_rules_content(reader, user).await.map(Some);
        }
        let key = (user.to_owned(), scope.key(), kind.to_owned());
        let found = reader.get::<AccountData>(&key).await?.filter(|found| !is_deleted(&found.value));
        found.map(|found| raw(found.value)).transpose()
    }

    /// All items of a scope; for [`Scope::Global`] `m.push_rules` included.
    pub async fn account_data_all(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        scope: Scope<'_>,
    ) -> Result<Vec<AccountDataItem>, Error> {
        let prefix = (user.to_owned(), scope.key());
        let rows = reader.scan::<AccountData>(&prefix, Direction::Forward, usize::MAX).await?;
        let mut items = Vec::with_capacity(rows.len() + 1);
        for ((_, room, kind), found) in rows {
            if is_deleted(&found.value) {
                continue;
            }
            items.push(self.item(reader, user, &room, kind, found).await?);
        }
        if scope == Scope::Global && !items.iter().any(|item| item.kind == PUSH_RULES) {
            let content = self.push_rules_content(reader, user).await?;
            items.push(AccountDataItem {
                room: None,
                kind: PUSH_RULES.to_owned(),
                content,
                position: Position(0),
            });
        }
        Ok(items)
    }

    /// The items, global and of all rooms, that changed after a position, in the order of change. A deleted one has an
    /// empty object as its content; whoever begins at 0 is not told of what is gone.
    pub async fn account_data_since(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        after: Position,
    ) -> Result<Vec<AccountDataItem>, Error> {
        let from = (user.to_owned(), after.0 + 1);
        let rows = reader.scan_from::<AccountDataChanges>(&from.0, &from, usize::MAX).await?;
        let keys: Vec<_> = rows.into_iter().map(|((user, _, room, kind), ())| (user, room, kind)).collect();
        let found = reader.get_many::<AccountData>(&keys).await?;
        let mut items = Vec::with_capacity(keys.len());
        for ((_, room, kind), found) in keys.into_iter().zip(found) {
            let found = found.ok_or(chappe_store::Error::Corrupt("account data change without its item"))?;
            if after.0 == 0 && is_deleted(&found.value) {
                continue;
            }
            items.push(self.item(reader, user, &room, kind, found).await?);
        }
        Ok(items)
    }

    async fn item(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        room: &str,
        kind: String,
        found: Positioned<Vec<u8>>,
    ) -> Result<AccountDataItem, Error> {
        let room = if room.is_empty() {
            None
        } else {
            Some(RoomId::parse(room).map_err(|_| chappe_store::Error::Corrupt("room id of account data"))?)
        };
        let content = if room.is_none() && kind == PUSH_RULES {
            self.push_rules_content(reader, user).await?
        } else {
            raw(found.value)?
        };
        Ok(AccountDataItem { room, kind, content, position: found.position })
    }

    /// Changes the tags of a room: `change` edits the map of tags (`m.tag`'s `tags`), maybe several times.
    pub async fn update_tags(
        &self,
        user: &UserId,
        room: &RoomId,
        change: impl Fn(&mut Map<String, Value>) + Send + Sync,
    ) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let mut tags = self.read_tags(&reader, user, room).await?;
            change(&mut tags);
            let content = serde_json::json!({ "tags": tags }).to_string();
            let mut tx = Tx::new();
            self.draft_account_data(&reader, &mut tx, user, Scope::Room(room), TAGS, &content).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// The tags of a room.
    pub async fn tags(&self, user: &UserId, room: &RoomId) -> Result<Map<String, Value>, Error> {
        self.read_tags(&self.store().read(), user, room).await
    }

    async fn read_tags(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        room: &RoomId,
    ) -> Result<Map<String, Value>, Error> {
        let content = self.account_data(reader, user, Scope::Room(room), TAGS).await?;
        let content: Option<Value> = content.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let tags = content.and_then(|mut content| content.get_mut("tags").map(Value::take));
        Ok(match tags {
            Some(Value::Object(tags)) => tags,
            _ => Map::new(),
        })
    }

    /// Whom a user ignores: others.
    pub async fn ignored_users(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
    ) -> Result<BTreeSet<OwnedUserId>, Error> {
        let content = self.account_data(reader, user, Scope::Global, IGNORED).await?;
        let content: Option<Value> = content.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let ignored = content.as_ref().and_then(|content| content.get("ignored_users")?.as_object());
        let ignored = ignored.into_iter().flatten();
        Ok(ignored
            .filter_map(|(other, _)| UserId::parse(other.as_str()).ok())
            .filter(|other| other != user)
            .collect())
    }
}

fn raw(bytes: Vec<u8>) -> Result<Box<RawValue>, Error> {
    let text = String::from_utf8(bytes).map_err(|_| chappe_store::Error::Corrupt("account data"))?;
    Ok(RawValue::from_string(text).map_err(|_| chappe_store::Error::Corrupt("account data"))?)
}

/// Refuses the types that have calls of their own.
fn check_unmanaged(kind: &str) -> Result<(), Error> {
    if kind == PUSH_RULES || kind == "m.fully_read" { Err(Error::Managed) } else { Ok(()) }
}

fn is_deleted(content: &[u8]) -> bool {
    content == DELETED.as_bytes()
}

/// Whether a JSON object has no fields.
fn is_empty(content: &str) -> bool {
    let inside = content.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(|inside| inside.trim().is_empty())
}
