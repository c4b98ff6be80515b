//! Differences between versions, and whole states worked out from them.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use super::{KeyChange, KeyId, StateChanges, StateKey, StateRef, StateVersions};
use crate::{Reader, events::EventNum, rooms::RoomNid, tx::Error};

/// The keys on which several states differ: for each, its event in each of the states, in their order; [`EventNum::NONE`]
/// where it has none.
pub type Conflicted = BTreeMap<KeyId, Vec<EventNum>>;

/// What a key had from one version to a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCourse {
    /// Which key.
    pub key: KeyId,
    /// Its event before; [`EventNum::NONE`] if it had none.
    pub old: EventNum,
    /// Its events in between.
    pub between: Vec<EventNum>,
    /// Its event after; [`EventNum::NONE`] if it has none.
    pub new: EventNum,
}

/// First value and last value of each key that changed along a stretch of versions.
type Changed = BTreeMap<KeyId, (EventNum, EventNum)>;

/// Which part of a state.
#[derive(Clone, Copy)]
enum Which<'a> {
    All,
    Of(&'a str),
    WithoutMembers,
}

impl Which<'_> {
    fn has(self, key: &StateKey) -> bool {
        match self {
            Self::All => true,
            Self::Of(kind) => key.event_type() == kind,
            Self::WithoutMembers => key.event_type() != "m.room.member",
        }
    }
}

impl Reader<'_> {
    /// The keys whose events differ between `a` (`old`) and `b` (`new`), by key number: O(changes since their common
    /// ancestor); O(state) only where they have none, which takes a rejoin.
    pub async fn state_diff(&self, nid: RoomNid, a: StateRef, b: StateRef) -> Result<Vec<KeyChange>, Error> {
        if a == b {
            return Ok(Vec::new());
        }
        let (to_a, to_b) = match self.common_ancestor(nid, a, b).await? {
            Some(base) => (self.changed_along(nid, base, a).await?, self.changed_along(nid, base, b).await?),
            None => (self.collect(nid, a).await?, self.collect(nid, b).await?),
        };
        let value = |mine: &Changed, other: &Changed, key: KeyId| {
            let kept = || other.get(&key).map_or(EventNum::NONE, |(first, _)| *first);
            mine.get(&key).map_or_else(kept, |(_, last)| *last)
        };
        let mut keys: Vec<KeyId> = to_a.keys().chain(to_b.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let change = |key| KeyChange { key, old: value(&to_a, &to_b, key), new: value(&to_b, &to_a, key) };
        Ok(keys.into_iter().map(change).filter(|change| change.old != change.new).collect())
    }

    /// The keys on which several states differ: O(changes since the first and each of the others had a common ancestor).
    pub async fn conflicted(&self, nid: RoomNid, states: &[StateRef]) -> Result<Conflicted, Error> {
        let Some((first, others)) = states.split_first() else { return Ok(Conflicted::new()) };
        let mut diffs = Vec::with_capacity(others.len());
        let mut base = BTreeMap::new();
        for other in others {
            let diff = self.state_diff(nid, *first, *other).await?;
            base.extend(diff.iter().map(|change| (change.key, change.old)));
            diffs.push(diff.into_iter().map(|change| (change.key, change.new)).collect::<HashMap<_, _>>());
        }
        let values = |(key, old): (KeyId, EventNum)| {
            let others = diffs.iter().map(|diff| diff.get(&key).copied().unwrap_or(old));
            (key, std::iter::once(old).chain(others).collect())
        };
        Ok(base.into_iter().map(values).collect())
    }

    /// The keys that got another event on the way from `a` to a later version `b` of the same line, by key number, those
    /// included that have the same one at both ends: where states are resolved, what was taken back is there again.
    /// Between other versions there is no way, only the difference.
    pub async fn state_course(
        &self,
        nid: RoomNid,
        a: StateRef,
        b: StateRef,
    ) -> Result<Vec<KeyCourse>, Error> {
        if a.line != b.line || a.version > b.version {
            let course = |KeyChange { key, old, new }| KeyCourse { key, old, between: Vec::new(), new };
            return Ok(self.state_diff(nid, a, b).await?.into_iter().map(course).collect());
        }
        if a == b {
            return Ok(Vec::new());
        }
        let mut courses: BTreeMap<KeyId, KeyCourse> = BTreeMap::new();
        let (from, to) = ((nid, a.line, a.version + 1), (nid, b.line, b.version + 1));
        for (_, changes) in self.scan_between::<StateChanges>(&from, &to).await? {
            for KeyChange { key, old, new } in changes {
                match courses.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(KeyCourse { key, old, between: Vec::new(), new });
                    }
                    Entry::Occupied(mut entry) => {
                        let course = entry.get_mut();
                        course.between.push(course.new);
                        course.new = new;
                    }
                }
            }
        }
        Ok(courses.into_values().collect())
    }

    /// The whole state at any version. O(state + changes between then and now).
    pub async fn full_state(&self, nid: RoomNid, at: StateRef) -> Result<Vec<(StateKey, EventNum)>, Error> {
        self.state_where(nid, at, Which::All).await
    }

    /// The state events of one type at any version.
    pub async fn state_of_type(
        &self,
        nid: RoomNid,
        at: StateRef,
        kind: &str,
    ) -> Result<Vec<(StateKey, EventNum)>, Error> {
        self.state_where(nid, at, Which::Of(kind)).await
    }

    /// The state but for the members at any version.
    pub async fn state_without_members(
        &self,
        nid: RoomNid,
        at: StateRef,
    ) -> Result<Vec<(StateKey, EventNum)>, Error> {
        self.state_where(nid, at, Which::WithoutMembers).await
    }

    async fn state_where(
        &self,
        nid: RoomNid,
        at: StateRef,
        which: Which<'_>,
    ) -> Result<Vec<(StateKey, EventNum)>, Error> {
        let now = self.room_head(nid).await?.state;
        let current = match which {
            Which::All => self.current_state(nid).await?,
            Which::Of(kind) => self.current_of_type(nid, kind).await?,
            Which::WithoutMembers => self.current_without_members(nid).await?,
        };
        let changes = self.state_diff(nid, now, at).await?;
        if changes.is_empty() {
            return Ok(current);
        }
        let mut state: BTreeMap<StateKey, EventNum> = current.into_iter().collect();
        let ids: Vec<KeyId> = changes.iter().map(|change| change.key).collect();
        for (key, change) in self.state_keys(nid, &ids).await?.into_iter().zip(changes) {
            if !which.has(&key) {
                continue;
            }
            match change.new.some() {
                Some(num) => state.insert(key, num),
                None => state.remove(&key),
            };
        }
        Ok(state.into_iter().collect())
    }

    /// The version itself, the one its line starts from, and so on.
    pub(crate) async fn lineage(&self, nid: RoomNid, at: StateRef) -> Result<Vec<StateRef>, Error> {
        let mut path = vec![at];
        let mut line = at.line;
        while let Some(parent) = self.line_parent(nid, line).await? {
            path.push(parent);
            line = parent.line;
        }
        Ok(path)
    }

    async fn common_ancestor(
        &self,
        nid: RoomNid,
        a: StateRef,
        b: StateRef,
    ) -> Result<Option<StateRef>, Error> {
        if a.line == b.line {
            return Ok(Some(a.min(b)));
        }
        let (path_a, path_b) = (self.lineage(nid, a).await?, self.lineage(nid, b).await?);
        let shared = |x: &StateRef| path_b.iter().find(|y| y.line == x.line).map(|y| *x.min(y));
        Ok(path_a.iter().find_map(shared))
    }

    /// What changed from `base` to `to`, a descendant of it.
    async fn changed_along(&self, nid: RoomNid, base: StateRef, to: StateRef) -> Result<Changed, Error> {
        let mut stretches = Vec::new();
        let mut here = to;
        while here.line != base.line {
            stretches.push((here.line, 0, here.version));
            here = self.line_parent(nid, here.line).await?.ok_or(Error::Corrupt("state line"))?;
        }
        stretches.push((base.line, base.version, here.version));
        let mut changed = Changed::new();
        for (line, after, until) in stretches.into_iter().rev() {
            if after >= until {
                continue;
            }
            let (from, to) = ((nid, line, after + 1), (nid, line, until + 1));
            for (_, changes) in self.scan_between::<StateChanges>(&from, &to).await? {
                for change in changes {
                    changed.entry(change.key).or_insert((change.old, EventNum::NONE)).1 = change.new;
                }
            }
        }
        Ok(changed)
    }

    /// What changed on side lines from the main line (or nothing) up to `to`, and where that starts.
    pub(crate) async fn since_root(
        &self,
        nid: RoomNid,
        to: StateRef,
    ) -> Result<(StateRef, Vec<KeyChange>), Error> {
        let path = self.lineage(nid, to).await?;
        let root = *path.last().ok_or(Error::Corrupt("state line"))?;
        let changed = self.changed_along(nid, root, to).await?;
        let change = |(key, (old, new))| KeyChange { key, old, new };
        Ok((root, changed.into_iter().map(change).filter(|change| change.old != change.new).collect()))
    }

    /// A whole state read from its version rows.
    async fn collect(&self, nid: RoomNid, at: StateRef) -> Result<Changed, Error> {
        let mut state = Changed::new();
        for here in self.lineage(nid, at).await?.into_iter().rev() {
            let mut last = None;
            for ((_, _, key, inverted), num) in self.scan_all::<StateVersions>(&(nid, here.line)).await? {
                if !inverted <= here.version && last != Some(key) {
                    last = Some(key);
                    state.insert(key, (EventNum::NONE, num));
                }
            }
        }
        Ok(state)
    }
}
