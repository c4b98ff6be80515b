//! The state of a room as a multi-version map: every version of every state key stays readable, nothing is copied.
//!
//! A *line* is a sequence of versions 1, 2, 3 …; version 0 is what its parent says (nothing, for a line without
//! parent). The room's current state is the tip of the *main line*; an event on a fork gets a *side line* whose
//! parent is the state it builds on. One row per changed key and version, one row per version listing what changed.

mod diff;
mod key;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use chappe_kv::Position;
use futures_util::future::try_join_all;

pub(crate) use self::write::note_states;
pub use self::{
    diff::{Conflicted, KeyCourse},
    key::{KeyId, StateKey, StateType},
    write::{StateChange, StateWriter},
};
use crate::{
    Direction, Reader, Value,
    events::EventNum,
    pack::{Packer, Unpacker},
    rooms::{RoomHead, RoomHeads, RoomNid},
    table,
    tx::Error,
};

/// Changes of one key looked through when many versions are asked for at once.
const PREPARED: usize = 64;

/// A version of a room's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateRef {
    /// The line.
    pub line: u32,
    /// The version on that line.
    pub version: u32,
}

impl StateRef {
    /// Before the first state event.
    pub const EMPTY: Self = Self { line: 0, version: 0 };

    pub(crate) fn pack(self) -> Vec<u8> {
        Packer::default().uint(self.line.into()).uint(self.version.into()).done()
    }

    pub(crate) fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Error> {
        Ok(Self { line: from.u32()?, version: from.u32()? })
    }
}

impl Value for StateRef {
    fn to_bytes(&self) -> Vec<u8> {
        self.pack()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::unpack(&mut Unpacker::new(bytes, "state reference"))
    }
}

/// Where a line starts; `None` from nothing.
pub(crate) type LineParent = Option<StateRef>;

/// A side line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What its version 0 is.
    pub parent: Option<StateRef>,
    /// Its last version.
    pub last: u32,
}

impl Value for Line {
    fn to_bytes(&self) -> Vec<u8> {
        let mut to = Packer::default();
        to.uint(self.last.into());
        if let Some(parent) = self.parent {
            to.raw(&parent.pack());
        }
        to.done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "state line");
        let last = from.u32()?;
        let mut rest = Unpacker::new(from.rest(), "state line");
        let parent = StateRef::unpack(&mut rest).ok();
        Ok(Self { parent, last })
    }
}

/// One key that differs between two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyChange {
    /// Which key.
    pub key: KeyId,
    /// Its event before; [`EventNum::NONE`] if it had none.
    pub old: EventNum,
    /// Its event after; [`EventNum::NONE`] if it has none.
    pub new: EventNum,
}

impl Value for Vec<KeyChange> {
    fn to_bytes(&self) -> Vec<u8> {
        let mut to = Packer::default();
        for change in self {
            to.uint(change.key.0.into()).uint(change.old.0.into()).uint(change.new.0.into());
        }
        to.done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "state change");
        let mut changes = Self::new();
        while !from.is_empty() {
            let (key, old, new) = (KeyId(from.u32()?), EventNum(from.u32()?), EventNum(from.u32()?));
            changes.push(KeyChange { key, old, new });
        }
        Ok(changes)
    }
}

/// A key's number and its event in the current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The key's number.
    pub key: KeyId,
    /// Its current event; [`EventNum::NONE`] if it has none now.
    pub num: EventNum,
}

impl Value for Now {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().uint(self.key.0.into()).uint(self.num.0.into()).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "current state");
        Ok(Self { key: KeyId(from.u32()?), num: EventNum(from.u32()?) })
    }
}

table! {
    /// Room and state key → the key's number and current event.
    StateNow = STATE_NOW: (RoomNid, StateKey) => Now;
    /// Room and key number → state key.
    StateKeys = STATE_KEYS: (RoomNid, KeyId) => StateKey;
    /// Room, line, key number, version inverted (latest first) → event; `NONE` where the key was removed.
    StateVersions = STATE_VERSIONS: (RoomNid, u32, KeyId, u32) => EventNum;
    /// Room, line, version, part → what changed in that version, at most [`write::PART`] keys a part.
    StateChanges = STATE_CHANGES: (RoomNid, u32, u32, u16) => Vec<KeyChange>;
    /// Room and line → parent and last version; the first main line (0) has no row.
    StateLines = STATE_LINES: (RoomNid, u32) => Line;
    /// Room and commit → the state that was the current one from then on.
    StateSince = STATE_SINCE: (RoomNid, Position) => StateRef;
}

impl Reader<'_> {
    /// Head and some keys of the current state, in the order of the keys: one round trip.
    pub async fn head_and_state(
        &self,
        nid: RoomNid,
        keys: &[StateKey],
    ) -> Result<(RoomHead, Vec<Option<EventNum>>), Error> {
        let wanted: Vec<_> = keys.iter().map(|key| (nid, key.clone())).collect();
        let (heads, rows) = self.get_both::<RoomHeads, StateNow>(&[nid], &wanted).await?;
        let head = heads.into_iter().next().flatten().ok_or(Error::Corrupt("room without a head"))?;
        Ok((head, rows.into_iter().map(|row| row.and_then(|now| now.num.some())).collect()))
    }

    /// Some keys of the current state, in their order: one round trip.
    pub async fn state_now(&self, nid: RoomNid, keys: &[StateKey]) -> Result<Vec<Option<EventNum>>, Error> {
        let rows = self.now_rows(nid, keys).await?;
        Ok(rows.into_iter().map(|row| row.and_then(|now| now.num.some())).collect())
    }

    async fn now_rows(&self, nid: RoomNid, keys: &[StateKey]) -> Result<Vec<Option<Now>>, Error> {
        let wanted: Vec<_> = keys.iter().map(|key| (nid, key.clone())).collect();
        let rows = self.get_many::<StateNow>(&wanted).await?;
        for ((_, key), row) in wanted.into_iter().zip(&rows) {
            if let Some(now) = row {
                self.cache.key_ids.insert((nid, key), now.key);
            }
        }
        Ok(rows)
    }

    /// One key of the current state of several rooms, in their order: one round trip, none for no rooms.
    pub async fn state_of_rooms(
        &self,
        nids: &[RoomNid],
        key: &StateKey,
    ) -> Result<Vec<Option<EventNum>>, Error> {
        if nids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = nids.iter().map(|nid| (*nid, key.clone())).collect();
        let rows = self.get_many::<StateNow>(&keys).await?;
        Ok(rows.into_iter().map(|row| row.and_then(|now| now.num.some())).collect())
    }

    /// The state that was the current one when the commit `at` was the newest: one round trip. `None` where that is not
    /// known, as no state has been noted so early.
    pub async fn state_as_of(&self, nid: RoomNid, at: Position) -> Result<Option<StateRef>, Error> {
        let after = (nid, Position(at.0.saturating_add(1)));
        let rows = self.scan_back::<StateSince>(&nid, &after, 1).await?;
        Ok(rows.first().map(|(_, state)| *state))
    }

    /// The whole current state.
    pub async fn current_state(&self, nid: RoomNid) -> Result<Vec<(StateKey, EventNum)>, Error> {
        let rows = self.scan_all::<StateNow>(&nid).await?;
        Ok(rows.into_iter().filter_map(|((_, key), now)| Some((key, now.num.some()?))).collect())
    }

    /// The current state but for the members: O(what is left), however many members there are.
    pub async fn current_without_members(&self, nid: RoomNid) -> Result<Vec<(StateKey, EventNum)>, Error> {
        let (members, beyond) = ((nid, key::MEMBERS), (nid, key::MEMBERS + 1));
        let mut rows = self.scan_between::<StateNow>(&nid, &members).await?;
        rows.extend(self.scan_between::<StateNow>(&beyond, &RoomNid(nid.0.saturating_add(1))).await?);
        Ok(rows.into_iter().filter_map(|((_, key), now)| Some((key, now.num.some()?))).collect())
    }

    /// The current state events of one type, by state key.
    pub async fn current_of_type(
        &self,
        nid: RoomNid,
        kind: &str,
    ) -> Result<Vec<(StateKey, EventNum)>, Error> {
        let rows = self.scan_all::<StateNow>(&(nid, StateType(kind.to_owned()))).await?;
        Ok(rows.into_iter().filter_map(|((_, key), now)| Some((key, now.num.some()?))).collect())
    }

    /// The state keys of one type that any state of the room has had, current ones and others: `limit` at most, in order, `from`
    /// included.
    pub async fn keys_of_type(
        &self,
        nid: RoomNid,
        kind: &str,
        from: &str,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let of_type = (nid, StateType(kind.to_owned()));
        let from = (nid, StateKey::new(kind, from));
        let rows = self.scan_from::<StateNow>(&of_type, &from, limit).await?;
        Ok(rows.into_iter().map(|((_, key), _)| key.state_key).collect())
    }

    /// Numbers of state keys, in their order; a key the room never had has none. One round trip, none if cached.
    pub async fn state_key_ids(&self, nid: RoomNid, keys: &[StateKey]) -> Result<Vec<Option<KeyId>>, Error> {
        let mut found: Vec<_> = keys.iter().map(|key| self.cache.key_ids.get(&(nid, key.clone()))).collect();
        let wanted: Vec<usize> = (0..keys.len()).filter(|&i| found[i].is_none()).collect();
        if !wanted.is_empty() {
            let missing: Vec<_> = wanted.iter().map(|&i| keys[i].clone()).collect();
            for (&i, row) in wanted.iter().zip(self.now_rows(nid, &missing).await?) {
                found[i] = row.map(|now| now.key);
            }
        }
        Ok(found)
    }

    /// State keys by number, in the order of the numbers. One round trip, none if cached.
    pub async fn state_keys(&self, nid: RoomNid, ids: &[KeyId]) -> Result<Vec<StateKey>, Error> {
        let mut found: Vec<_> = ids.iter().map(|id| self.cache.keys.get(&(nid, *id))).collect();
        let wanted: Vec<usize> = (0..ids.len()).filter(|&i| found[i].is_none()).collect();
        if !wanted.is_empty() {
            let missing: Vec<_> = wanted.iter().map(|&i| (nid, ids[i])).collect();
            let rows = self.get_many::<StateKeys>(&missing).await?;
            for (&i, row) in wanted.iter().zip(rows) {
                if let Some(key) = &row {
                    self.cache.keys.insert((nid, ids[i]), key.clone());
                }
                found[i] = row;
            }
        }
        found.into_iter().map(|key| key.ok_or(Error::Corrupt("state key number"))).collect()
    }

    /// Some keys of any version of the state, in their order. One seek a key and line, side by side; none if cached.
    pub async fn state_at(
        &self,
        nid: RoomNid,
        at: StateRef,
        keys: &[StateKey],
    ) -> Result<Vec<Option<EventNum>>, Error> {
        let ids = self.state_key_ids(nid, keys).await?;
        let values = ids.into_iter().map(|id| async move {
            match id {
                Some(id) => Ok(self.value_at(nid, at, id).await?.some()),
                None => Ok::<_, Error>(None),
            }
        });
        try_join_all(values).await
    }

    /// Looks some keys up at many versions of the state at once, so that [`Reader::state_at`] finds them in the cache:
    /// one scan a key and line, side by side. Keys that change too often in between are left out.
    pub async fn prepare_state(&self, nid: RoomNid, at: &[StateRef], keys: &[StateKey]) -> Result<(), Error> {
        let mut lines: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for at in at.iter().filter(|at| at.version > 0) {
            lines.entry(at.line).or_default().insert(at.version);
        }
        lines.retain(|_, versions| versions.len() > 1);
        if lines.is_empty() {
            return Ok(());
        }
        let ids: Vec<KeyId> = self.state_key_ids(nid, keys).await?.into_iter().flatten().collect();
        let stretches =
            lines.iter().flat_map(|(line, versions)| ids.iter().map(move |id| (*line, versions, *id)));
        try_join_all(stretches.map(|(line, versions, id)| self.prepare_key(nid, line, versions, id))).await?;
        Ok(())
    }

    async fn prepare_key(
        &self,
        nid: RoomNid,
        line: u32,
        versions: &BTreeSet<u32>,
        id: KeyId,
    ) -> Result<(), Error> {
        let Some(last) = versions.last() else { return Ok(()) };
        let from = (nid, line, id, !last);
        let rows = self.scan_from::<StateVersions>(&(nid, line, id), &from, PREPARED).await?;
        let whole = rows.len() < PREPARED;
        for version in versions {
            let value = rows.iter().find(|((_, _, _, since), _)| !since <= *version).map(|(_, num)| *num);
            // Before the first change on the main line there is nothing; a side line goes on from its parent.
            let value = value.or((whole && line == 0).then_some(EventNum::NONE));
            if let Some(num) = value {
                self.cache.values.insert((nid, StateRef { line, version: *version }, id), num);
            }
        }
        Ok(())
    }

    /// One key of any version.
    pub async fn state_event_at(
        &self,
        nid: RoomNid,
        at: StateRef,
        key: &StateKey,
    ) -> Result<Option<EventNum>, Error> {
        Ok(self.state_at(nid, at, std::slice::from_ref(key)).await?.into_iter().next().flatten())
    }

    /// A key by number at a **committed** version.
    pub(crate) async fn value_at(&self, nid: RoomNid, at: StateRef, key: KeyId) -> Result<EventNum, Error> {
        if let Some(num) = self.cache.values.get(&(nid, at, key)) {
            return Ok(num);
        }
        let mut here = at;
        let num = loop {
            if here.version > 0 {
                let from = (nid, here.line, key, !here.version);
                let rows = self.scan_from::<StateVersions>(&(nid, here.line, key), &from, 1).await?;
                if let Some((_, num)) = rows.into_iter().next() {
                    break num;
                }
            }
            match self.line_parent(nid, here.line).await? {
                Some(parent) => here = parent,
                None => break EventNum::NONE,
            }
        };
        self.cache.values.insert((nid, at, key), num);
        Ok(num)
    }

    /// What a committed line starts from.
    pub(crate) async fn line_parent(&self, nid: RoomNid, line: u32) -> Result<LineParent, Error> {
        if line == 0 {
            return Ok(None);
        }
        if let Some(parent) = self.cache.parents.get(&(nid, line)) {
            return Ok(parent);
        }
        let found = self.get::<StateLines>(&(nid, line)).await?.ok_or(Error::Corrupt("state line"))?;
        self.cache.parents.insert((nid, line), found.parent);
        Ok(found.parent)
    }

    /// How many state versions' change rows a room's line has on disk: for tests and operators.
    pub async fn last_version(&self, nid: RoomNid, line: u32) -> Result<u32, Error> {
        let rows = self.scan::<StateChanges>(&(nid, line), Direction::Backward, 1).await?;
        Ok(rows.first().map_or(0, |((_, _, version, _), _)| *version))
    }
}

#[cfg(test)]
mod tests;
