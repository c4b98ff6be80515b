//! Writing new versions of a room's state into a transaction.

use std::collections::{BTreeMap, HashMap};

use super::{
    KeyChange, KeyId, Line, Now, StateChanges, StateKey, StateKeys, StateLines, StateNow, StateRef,
    StateSince, StateVersions,
};
use crate::{
    Reader, Store, Tx,
    events::EventNum,
    rooms::{FIRST_KEY, RoomHead, RoomHeads, RoomNid},
    tx::Error,
};

/// Keys in one row of changes: keeps a row of a huge change (a join over federation) below 64 KiB.
pub(super) const PART: usize = 4_000;

/// Rooms looked at in one commit.
const PAGE: usize = 1_000;

/// A line this deep below the main line is flattened when something is put on top of it.
const DEEPEST: usize = 8;

/// A key that gets another event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Which key.
    pub key: StateKey,
    /// Its event from now on; [`EventNum::NONE`] removes it.
    pub num: EventNum,
}

/// New state versions in the making, to be written with the head they were made on.
///
/// Versions it gives out can be read through it ([`StateWriter::state_at`]) before they are committed. It keeps the
/// head's counters itself: [`StateWriter::write`] puts them and the current state into the next head.
#[derive(Debug)]
pub struct StateWriter {
    nid: RoomNid,
    /// The current state, committed.
    committed: StateRef,
    current: StateRef,
    next_line: u32,
    next_key: u32,
    /// Whether the room has no keys on disk at all.
    bare: bool,
    /// Current values that differ from the committed ones.
    now: HashMap<KeyId, EventNum>,
    ids: HashMap<StateKey, KeyId>,
    /// Keys without a number on disk.
    new_keys: Vec<(StateKey, KeyId)>,
    names: HashMap<KeyId, StateKey>,
    versions: BTreeMap<(u32, KeyId), Vec<(u32, EventNum)>>,
    changes: Vec<(StateRef, Vec<KeyChange>)>,
    /// Lines written to, with their last version on disk.
    lines: BTreeMap<u32, (Line, u32)>,
}

impl StateWriter {
    /// A writer on top of the head that the transaction will expect.
    pub fn new(nid: RoomNid, head: &RoomHead) -> Self {
        Self {
            nid,
            committed: head.state,
            current: head.state,
            next_line: head.next_line,
            next_key: head.next_key,
            bare: head.next_key == FIRST_KEY,
            now: HashMap::new(),
            ids: HashMap::new(),
            new_keys: Vec::new(),
            names: HashMap::new(),
            versions: BTreeMap::new(),
            changes: Vec::new(),
            lines: BTreeMap::new(),
        }
    }

    /// The current state, with what this writer did to it.
    pub fn current(&self) -> StateRef {
        self.current
    }

    /// The next version of the current state. Keys that keep their event are left out; nothing changed gives the same
    /// version. O(changes).
    pub async fn advance(&mut self, reader: &Reader<'_>, changes: &[StateChange]) -> Result<StateRef, Error> {
        let changes = self.real_changes(reader, self.current, changes).await?;
        if changes.is_empty() {
            return Ok(self.current);
        }
        for change in &changes {
            self.now.insert(change.key, change.new);
        }
        self.current = StateRef { version: self.current.version + 1, ..self.current };
        self.record(self.current, changes);
        Ok(self.current)
    }

    /// A version that is not current: `base` with `changes`. Continues the side line `base` is the tip of, or opens
    /// one. O(changes), whatever the size of the state.
    pub async fn branch(
        &mut self,
        reader: &Reader<'_>,
        base: StateRef,
        changes: &[StateChange],
    ) -> Result<StateRef, Error> {
        let mut changes = self.real_changes(reader, base, changes).await?;
        if changes.is_empty() {
            return Ok(base);
        }
        if let Some(line) = self.side_line(reader, base).await? {
            let at = StateRef { line, version: base.version + 1 };
            self.record(at, changes);
            return Ok(at);
        }
        let mut parent = base;
        if !self.lines.contains_key(&base.line) && reader.lineage(self.nid, base).await?.len() > DEEPEST {
            let (root, below) = reader.since_root(self.nid, base).await?;
            parent = root;
            changes = merged(below, changes);
        }
        let at = StateRef { line: self.next_line, version: 1 };
        self.next_line += 1;
        self.lines.insert(at.line, (Line { parent: Some(parent), last: 0 }, 0));
        self.record(at, changes);
        Ok(at)
    }

    /// Whether this writer has given a key its number.
    pub fn is_new_key(&self, key: &StateKey) -> bool {
        self.new_keys.iter().any(|(new, _)| new == key)
    }

    /// Numbers keys ahead of time, so that a very large change can be spread over several transactions.
    pub async fn intern(&mut self, reader: &Reader<'_>, keys: &[StateKey]) -> Result<(), Error> {
        self.key_ids(reader, keys).await.map(drop)
    }

    /// Keys of a version that may be one of this writer's own.
    pub async fn state_at(
        &self,
        reader: &Reader<'_>,
        at: StateRef,
        keys: &[StateKey],
    ) -> Result<Vec<Option<EventNum>>, Error> {
        let unknown: Vec<_> = keys.iter().filter(|key| !self.ids.contains_key(key)).cloned().collect();
        let mut found = self.ids_on_disk(reader, &unknown).await?.into_iter();
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let id = match self.ids.get(key) {
                Some(id) => Some(*id),
                None => found.next().flatten(),
            };
            values.push(match id {
                Some(id) => self.value_at(reader, at, id).await?.some(),
                None => None,
            });
        }
        Ok(values)
    }

    /// Puts everything into the transaction and the new counters and current state into the next head, which the
    /// caller puts with [`Tx::replace_head`].
    pub fn write(self, head: &mut RoomHead, tx: &mut Tx) {
        let nid = self.nid;
        for (key, id) in &self.new_keys {
            tx.put::<StateKeys>(&(nid, *id), key);
            if !self.now.contains_key(id) {
                tx.put::<StateNow>(&(nid, key.clone()), &Now { key: *id, num: EventNum::NONE });
            }
        }
        for (id, num) in &self.now {
            if let Some(key) = self.names.get(id) {
                tx.put::<StateNow>(&(nid, key.clone()), &Now { key: *id, num: *num });
            }
        }
        for ((line, key), versions) in &self.versions {
            for (version, num) in versions {
                tx.put::<StateVersions>(&(nid, *line, *key, !version), num);
            }
        }
        for (at, changes) in &self.changes {
            for (part, changes) in (0u16..).zip(changes.chunks(PART)) {
                tx.put::<StateChanges>(&(nid, at.line, at.version, part), &changes.to_vec());
            }
        }
        for (line, (record, _)) in self.lines.iter().filter(|(line, _)| **line != self.current.line) {
            tx.put::<StateLines>(&(nid, *line), record);
        }
        if self.current != self.committed {
            tx.put_at_position::<StateSince>(&nid, &(), &self.current);
        }
        head.no_policy &= !self.is_new_key(&StateKey::policy_server());
        head.state = self.current;
        head.next_line = self.next_line;
        head.next_key = self.next_key;
    }

    fn record(&mut self, at: StateRef, changes: Vec<KeyChange>) {
        for change in &changes {
            self.versions.entry((at.line, change.key)).or_default().push((at.version, change.new));
        }
        let committed = self.committed;
        let on_disk = Line { parent: None, last: committed.version };
        self.lines.entry(at.line).or_insert((on_disk, committed.version)).0.last = at.version;
        self.changes.push((at, changes));
    }

    /// The changes that change something against `base`, with the values there.
    async fn real_changes(
        &mut self,
        reader: &Reader<'_>,
        base: StateRef,
        changes: &[StateChange],
    ) -> Result<Vec<KeyChange>, Error> {
        let keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
        let ids = self.key_ids(reader, &keys).await?;
        let mut real = BTreeMap::new();
        for (key, change) in ids.into_iter().zip(changes) {
            let old = self.value_at(reader, base, key).await?;
            real.insert(key, KeyChange { key, old, new: change.num });
        }
        Ok(real.into_values().filter(|change| change.old != change.new).collect())
    }

    async fn key_ids(&mut self, reader: &Reader<'_>, keys: &[StateKey]) -> Result<Vec<KeyId>, Error> {
        let unknown: Vec<_> = keys.iter().filter(|key| !self.ids.contains_key(key)).cloned().collect();
        for (key, found) in unknown.iter().zip(self.ids_on_disk(reader, &unknown).await?) {
            if self.ids.contains_key(key) {
                continue;
            }
            let id = found.unwrap_or_else(|| {
                let id = KeyId(self.next_key);
                self.next_key += 1;
                self.new_keys.push((key.clone(), id));
                id
            });
            self.ids.insert(key.clone(), id);
            self.names.insert(id, key.clone());
        }
        keys.iter().map(|key| self.ids.get(key).copied().ok_or(Error::Corrupt("state key"))).collect()
    }

    async fn ids_on_disk(&self, reader: &Reader<'_>, keys: &[StateKey]) -> Result<Vec<Option<KeyId>>, Error> {
        if self.bare { Ok(vec![None; keys.len()]) } else { reader.state_key_ids(self.nid, keys).await }
    }

    /// The side line whose last version is `base`.
    async fn side_line(&mut self, reader: &Reader<'_>, base: StateRef) -> Result<Option<u32>, Error> {
        if base.line == self.current.line || base.line == 0 {
            return Ok(None);
        }
        if let Some((line, _)) = self.lines.get(&base.line) {
            return Ok((line.last == base.version).then_some(base.line));
        }
        let line =
            reader.get::<StateLines>(&(self.nid, base.line)).await?.ok_or(Error::Corrupt("state line"))?;
        if line.last != base.version {
            return Ok(None);
        }
        self.lines.insert(base.line, (line, line.last));
        Ok(Some(base.line))
    }

    /// A key at a version: what this writer did, above what is committed. Asks the reader for committed versions only,
    /// because it keeps what it finds.
    async fn value_at(&self, reader: &Reader<'_>, at: StateRef, key: KeyId) -> Result<EventNum, Error> {
        let mut here = at;
        loop {
            if let Some(versions) = self.versions.get(&(here.line, key))
                && let Some((_, num)) = versions.iter().rev().find(|(version, _)| *version <= here.version)
            {
                return Ok(*num);
            }
            let Some((line, committed)) = self.lines.get(&here.line) else {
                return reader.value_at(self.nid, here, key).await;
            };
            if here.line == self.committed.line || *committed > 0 {
                let version = here.version.min(*committed);
                return reader.value_at(self.nid, StateRef { version, ..here }, key).await;
            }
            match line.parent {
                Some(parent) => here = parent,
                None => return Ok(EventNum::NONE),
            }
        }
    }
}

/// `above` on top of `below`, as changes against what `below` starts from.
fn merged(below: Vec<KeyChange>, above: Vec<KeyChange>) -> Vec<KeyChange> {
    let mut all: BTreeMap<KeyId, KeyChange> = below.into_iter().map(|change| (change.key, change)).collect();
    for change in above {
        all.entry(change.key).or_insert(change).new = change.new;
    }
    all.into_values().filter(|change| change.old != change.new).collect()
}

/// Notes of all rooms that they have their states by now: from format 4 on it is noted when that changes.
pub(crate) async fn note_states(store: &Store) -> Result<(), Error> {
    let mut from = RoomNid(0);
    loop {
        let rows = store.read().scan_from::<RoomHeads>(&(), &from, PAGE).await?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = RoomNid(last.0.saturating_add(1));
        let mut tx = Tx::new();
        for (nid, head) in rows.into_iter().filter(|(_, head)| !head.is_bare()) {
            tx.put_at_position::<StateSince>(&nid, &(), &head.state);
        }
        if !tx.is_empty() {
            store.commit(tx).await?;
        }
    }
}
