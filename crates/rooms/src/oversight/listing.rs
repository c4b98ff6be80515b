//! The list of rooms as administrators page through it: filtered, sorted, counted.

use std::cmp::{Ordering, Reverse};

use chappe_store::{RoomNid, members::RoomServers, state::StateKey};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::Serialize;
use serde_json::{Map, Value};

use super::PAGE;
use crate::{
    Error, Result, Rooms,
    read::view::{Event, View},
};

/// A room in a list, with the names that Synapse gives its fields.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Which.
    pub room_id: OwnedRoomId,
    /// Its name.
    pub name: Option<String>,
    /// Its topic.
    pub topic: Option<String>,
    /// Its avatar, an `mxc:` URI.
    pub avatar: Option<String>,
    /// Its main alias.
    pub canonical_alias: Option<String>,
    /// Joined users.
    pub joined_members: u32,
    /// Joined users of this server.
    pub joined_local_members: u32,
    /// Its version.
    pub version: String,
    /// Who made it.
    pub creator: Option<OwnedUserId>,
    /// The algorithm of its encryption.
    pub encryption: Option<String>,
    /// Whether users of other servers may join.
    pub federatable: bool,
    /// Whether it stands in the public directory.
    pub public: bool,
    /// Who may join.
    pub join_rules: Option<String>,
    /// Whether guests may.
    pub guest_access: Option<String>,
    /// Who may read what was said before.
    pub history_visibility: Option<String>,
    /// Keys of its state.
    pub state_events: u32,
    /// What kind of room it is: `m.space`.
    pub room_type: Option<String>,
    /// Whether it was closed for another room.
    pub tombstoned: bool,
    /// That room.
    pub replacement_room: Option<String>,
}

/// Which rooms, in which order.
#[derive(Clone, Debug, Default)]
pub struct RoomQuery {
    /// Only those with this in their name, their alias' localpart or their id.
    pub search: Option<String>,
    /// Only those in the directory, or only the others.
    pub public: Option<bool>,
    /// Only those without joined users, or only the others.
    pub empty: Option<bool>,
    /// The order; what is alike is sorted by room id.
    pub order: RoomOrder,
    /// Whether the order is turned round.
    pub backward: bool,
    /// How many to leave out.
    pub from: usize,
    /// How many to show.
    pub limit: usize,
}

/// What rooms are sorted by; numbers begin with the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoomOrder {
    /// Name.
    #[default]
    Name,
    /// Main alias.
    Alias,
    /// Joined users.
    Members,
    /// Joined users of this server.
    LocalMembers,
    /// Version.
    Version,
    /// Who made it.
    Creator,
    /// Algorithm.
    Encryption,
    /// Whether others may join.
    Federatable,
    /// Whether it is in the directory.
    Public,
    /// Join rules.
    JoinRules,
    /// Guest access.
    GuestAccess,
    /// History visibility.
    HistoryVisibility,
    /// Keys of its state.
    StateEvents,
}

/// A page of rooms.
#[derive(Clone, Debug, Default)]
pub struct RoomPage {
    /// The rooms.
    pub rooms: Vec<Listed>,
    /// How many there are on all pages.
    pub total: usize,
}

/// The state that a list tells of; the order is that of [`View::described`].
const PARTS: [&str; 10] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.join_rules",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.tombstone",
];

impl RoomQuery {
    fn admits(&self, room: &Listed) -> bool {
        let is = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        is(self.public, room.public) && is(self.empty, room.joined_members == 0) && self.finds(room)
    }

    fn finds(&self, room: &Listed) -> bool {
        let Some(wanted) = &self.search else { return true };
        let part = wanted.to_lowercase();
        let alias = room.canonical_alias.as_deref().and_then(|alias| alias.split_once(':'));
        room.name.as_ref().is_some_and(|name| name.to_lowercase().contains(&part))
            || alias.is_some_and(|(local, _)| local.to_lowercase().contains(&part))
            || room.room_id.as_str().contains(wanted)
    }

    fn compare(&self, a: &Listed, b: &Listed) -> Ordering {
        let ordering = match self.order {
            RoomOrder::Name => a.name.cmp(&b.name),
            RoomOrder::Alias => a.canonical_alias.cmp(&b.canonical_alias),
            RoomOrder::Members => Reverse(a.joined_members).cmp(&Reverse(b.joined_members)),
            RoomOrder::LocalMembers => Reverse(a.joined_local_members).cmp(&Reverse(b.joined_local_members)),
            RoomOrder::Version => Reverse(&a.version).cmp(&Reverse(&b.version)),
            RoomOrder::Creator => a.creator.cmp(&b.creator),
            RoomOrder::Encryption => a.encryption.cmp(&b.encryption),
            RoomOrder::Federatable => a.federatable.cmp(&b.federatable),
            RoomOrder::Public => a.public.cmp(&b.public),
            RoomOrder::JoinRules => a.join_rules.cmp(&b.join_rules),
            RoomOrder::GuestAccess => a.guest_access.cmp(&b.guest_access),
            RoomOrder::HistoryVisibility => a.history_visibility.cmp(&b.history_visibility),
            RoomOrder::StateEvents => Reverse(a.state_events).cmp(&Reverse(b.state_events)),
        };
        let ordering = if self.backward { ordering.reverse() } else { ordering };
        ordering.then_with(|| a.room_id.cmp(&b.room_id))
    }
}

impl Rooms {
    /// A page of rooms. Reads every room: for administrators alone.
    pub async fn list(&self, query: &RoomQuery) -> Result<RoomPage> {
        let (mut found, mut after) = (Vec::new(), RoomNid(0));
        loop {
            let nids = self.0.store.read().rooms_after(after, PAGE).await?;
            let Some(last) = nids.last() else { break };
            after = *last;
            for nid in nids {
                let listed = self.view_of(nid).await?.described().await?;
                found.extend(Some(listed).filter(|listed| query.admits(listed)));
            }
        }
        let total = found.len();
        found.sort_by(|a, b| query.compare(a, b));
        let rooms = found.into_iter().skip(query.from).take(query.limit).collect();
        Ok(RoomPage { rooms, total })
    }

    /// One room as a list shows it.
    pub async fn described(&self, room: &RoomId) -> Result<Option<Listed>> {
        match self.view(room).await {
            Ok(view) => view.described().await.map(Some),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl View<'_> {
    /// This room as a list shows it.
    async fn described(&self) -> Result<Listed> {
        let keys: Vec<StateKey> = PARTS.iter().map(|kind| StateKey::new(kind, "")).collect();
        let parts = self.state_events_at(self.head.state, &keys).await?;
        let local = (self.nid, self.inner.server.clone());
        let local = self.reader.get::<RoomServers>(&local).await?.unwrap_or(0);
        let public = self.reader.is_published(self.nid).await?;
        let text = |part: usize, field: &str| content(&parts, part).get(field).and_then(text);
        let federate = content(&parts, 0).get("m.federate").and_then(Value::as_bool);
        Ok(Listed {
            room_id: self.room_id.clone(),
            name: text(1, "name"),
            topic: text(2, "topic"),
            avatar: text(3, "url"),
            canonical_alias: text(4, "alias"),
            joined_members: self.head.joined,
            joined_local_members: u32::try_from(local).unwrap_or(0),
            version: self.head.version.to_string(),
            creator: parts.first().and_then(Option::as_ref).map(|event| event.pdu.sender().to_owned()),
            encryption: text(5, "algorithm"),
            federatable: federate.unwrap_or(true),
            public,
            join_rules: text(6, "join_rule"),
            guest_access: text(7, "guest_access"),
            history_visibility: text(8, "history_visibility"),
            state_events: self.head.next_key.saturating_sub(1),
            room_type: text(0, "type"),
            tombstoned: parts.get(9).is_some_and(Option::is_some),
            replacement_room: text(9, "replacement_room"),
        })
    }
}

fn content(parts: &[Option<Event>], part: usize) -> Map<String, Value> {
    let event = parts.get(part).and_then(Option::as_ref);
    event.and_then(|event| event.pdu.content_as()).unwrap_or_default()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
