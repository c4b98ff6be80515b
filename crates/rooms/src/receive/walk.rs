//! The way back from events that are missing here to something that is here.

use std::collections::{BTreeMap, BTreeSet};

use chappe_rules::Pdu;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt};

use super::{Proven, order::ordered};
use crate::{Inner, Result};

/// What was before a join with which the room came in here. That is history, which comes when somebody reads it, and no news,
/// though something that was said beside the join leads to it.
#[derive(Clone, Debug)]
pub(super) struct Past {
    /// The events just before the join.
    last: BTreeSet<OwnedEventId>,
    /// How deep the join is, and when it was made, by the clock of this server.
    depth: u64,
    made: MilliSecondsSinceUnixEpoch,
}

impl Default for Past {
    fn default() -> Self {
        let made = MilliSecondsSinceUnixEpoch(UInt::MIN);
        Self { last: BTreeSet::new(), depth: 0, made }
    }
}

impl Past {
    /// What was before an event.
    pub(super) fn of(join: &Pdu) -> Self {
        let last = join.prev_events().iter().cloned().collect();
        Self { last, depth: join.depth(), made: join.origin_server_ts() }
    }

    /// Whether an event seems to be of that time, or of a branch that parted then: who claims it to be less deep than what it
    /// rests on makes what others say on top of it less deep as well, and not older.
    fn seems_to_have(&self, pdu: &Pdu) -> bool {
        pdu.depth() < self.depth && pdu.origin_server_ts() <= self.made
    }
}

/// How far what a peer says to be missing leads back. Only what the events asked for rest on through missing events alone
/// counts: the rest is older than something that is here, or of a branch that nobody asked for.
#[derive(Debug)]
pub(super) struct Walk {
    found: BTreeMap<OwnedEventId, Proven>,
    reached: BTreeSet<OwnedEventId>,
    /// Where the way ends: missing events, each with the one that rests on it; none: it was asked for.
    ends: Vec<(OwnedEventId, Option<OwnedEventId>)>,
    past: Past,
    /// Those found that are beside the join or after it, however old they seem.
    beside: BTreeSet<OwnedEventId>,
    /// Those of the events come to that are past.
    older: BTreeSet<OwnedEventId>,
}

impl Walk {
    /// A way that begins at missing events.
    pub(super) fn new(roots: &[OwnedEventId]) -> Self {
        Self::down_to(Past::default(), roots)
    }

    /// The same, not into the past.
    pub(super) fn down_to(past: Past, roots: &[OwnedEventId]) -> Self {
        let (older, newer): (Vec<_>, Vec<_>) = roots.iter().cloned().partition(|id| past.last.contains(id));
        let ends = newer.into_iter().map(|id| (id, None)).collect();
        let older = older.into_iter().collect();
        let (found, reached, beside) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { found, reached, ends, past, beside, older }
    }

    /// Whether nothing was found yet.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Goes on with what was found; gives whether any of it is news.
    pub(super) async fn go_on(&mut self, inner: &Inner, room: &RoomId, found: Vec<Proven>) -> Result<bool> {
        let mut new = BTreeSet::new();
        for proven in found {
            let id = proven.pdu().event_id().to_owned();
            if self.found.insert(id.clone(), proven).is_none() {
                new.insert(id);
            }
        }
        let ends = std::mem::take(&mut self.ends).into_iter();
        // Of the others nothing new is known: there may be many, and each is looked at once.
        let (mut todo, ends): (Vec<_>, Vec<_>) = ends.partition(|(id, _)| self.found.contains_key(id));
        self.ends = ends;
        self.note_beside(inner, room, &new).await?;
        while !todo.is_empty() {
            let ids: Vec<OwnedEventId> = todo.iter().map(|(id, _)| id.clone()).collect();
            let missing: BTreeSet<OwnedEventId> = inner.unsettled(room, &ids).await?.into_iter().collect();
            for (id, follower) in std::mem::take(&mut todo) {
                let is_done = self.reached.contains(&id) || self.past.last.contains(&id);
                if is_done || !missing.contains(&id) {
                    continue;
                }
                match self.found.get(&id) {
                    Some(proven) if self.past.seems_to_have(proven.pdu()) && !self.beside.contains(&id) => {
                        self.older.insert(id);
                    }
                    Some(proven) => {
                        let before = proven.pdu().prev_events().iter();
                        todo.extend(before.map(|prev| (prev.clone(), Some(id.clone()))));
                        self.reached.insert(id);
                    }
                    None => self.ends.push((id, follower)),
                }
            }
        }
        Ok(!new.is_empty())
    }

    /// Notes which of what was just found follows the newest events of the past, something that is here, or what does: that is
    /// beside the join, or after it.
    async fn note_beside(
        &mut self,
        inner: &Inner,
        room: &RoomId,
        new: &BTreeSet<OwnedEventId>,
    ) -> Result<()> {
        if self.past.depth == 0 {
            return Ok(());
        }
        let mut followers: BTreeMap<&OwnedEventId, Vec<&OwnedEventId>> = BTreeMap::new();
        for (id, proven) in new.iter().filter_map(|id| self.found.get_key_value(id)) {
            for prev in proven.pdu().prev_events() {
                followers.entry(prev).or_default().push(id);
            }
        }
        let outside: Vec<OwnedEventId> =
            followers.keys().filter(|id| !new.contains(**id)).map(|id| (*id).clone()).collect();
        let missing: BTreeSet<OwnedEventId> = inner.unsettled(room, &outside).await?.into_iter().collect();
        let is_start = |id: &&OwnedEventId| {
            self.past.last.contains(*id) || self.beside.contains(*id) || !missing.contains(*id)
        };
        let mut todo: Vec<&OwnedEventId> = outside.iter().filter(is_start).collect();
        todo.extend(self.past.last.intersection(new));
        let mut beside = BTreeSet::new();
        while let Some(id) = todo.pop() {
            for follower in followers.get(id).into_iter().flatten() {
                if beside.insert((*follower).clone()) {
                    todo.push(follower);
                }
            }
        }
        self.beside.extend(beside);
        Ok(())
    }

    /// Those reached that rest on something that neither is here nor came.
    pub(super) fn open(&self) -> Vec<OwnedEventId> {
        let open: BTreeSet<&OwnedEventId> =
            self.ends.iter().filter_map(|(_, follower)| follower.as_ref()).collect();
        open.into_iter().cloned().collect()
    }

    /// The events asked for that did not come, those left out that are known to be past.
    pub(super) fn lacking(&self) -> Vec<OwnedEventId> {
        self.ends.iter().filter(|(_, follower)| follower.is_none()).map(|(id, _)| id.clone()).collect()
    }

    /// Events come to that are past: they are no news, and nothing before them is.
    pub(super) fn older(&self) -> &BTreeSet<OwnedEventId> {
        &self.older
    }

    /// The missing events that were reached, oldest first.
    pub(super) fn into_events(self) -> Vec<Proven> {
        let Self { mut found, reached, .. } = self;
        // How deep an event is its server only claims.
        let mut ids: Vec<&OwnedEventId> = reached.iter().collect();
        ids.sort_by_key(|id| found.get(*id).map(|proven| proven.pdu().depth()));
        let rests_on = |id: &&OwnedEventId| {
            let proven = found.get(*id);
            let before = proven.map(|proven| proven.pdu().prev_events());
            before.unwrap_or_default().iter().filter_map(|prev| reached.get(prev)).collect()
        };
        let order: Vec<OwnedEventId> = ordered(ids, rests_on).into_iter().cloned().collect();
        order.iter().filter_map(|id| found.remove(id)).collect()
    }
}
