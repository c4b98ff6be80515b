//! What a peer told of a state when events were missing here may be a lie, and so may be what followed from it: it counts, it
//! never has the last word.

use std::collections::BTreeSet;

use chappe_rules::{Pdu, auth::StateKey as RuleKey};
use chappe_store::{EventMeta, EventNum, StateChange, StateRef, state::StateKey};

use super::{
    Complete,
    judge::{StateBefore, Verdict},
};
use crate::{
    Result,
    desk::{Desk, Held, Placing, parsed, rule_key},
};

/// Events on side lines that are looked through for one whose state was told.
const LONGEST: usize = 100;

impl Complete {
    /// A rejection lasts and falls on all that name the event. Where it is the state before the event that speaks against it, and
    /// that comes from what was told, it is no rejection. While the members of a room are to come, what an event names may be
    /// rejected wrongly as well, and of such events only those are judged again that follow the join and nothing told.
    pub(super) async fn unless_told(
        &self,
        desk: &Desk<'_>,
        placing: &Placing,
        verdict: Verdict,
    ) -> Result<Verdict> {
        let Verdict::Rejected(reason) = verdict else { return Ok(verdict) };
        if !desk.head.partial && self.allowed_by_auth_events(desk).await?.is_err() {
            return Ok(Verdict::Rejected(reason));
        }
        let told =
            placing.prev.len() < self.pdu.prev_events().len() || desk.follows_told(&placing.prev).await?;
        Ok(if told { Verdict::Undecided(reason) } else { Verdict::Rejected(reason) })
    }
}

impl Desk<'_> {
    /// Whether the states after these events follow from one that was told, not from the current one of some time.
    async fn follows_told(&self, events: &[EventNum]) -> Result<bool> {
        let main = self.state.current().line;
        let (mut todo, mut seen) = (events.to_vec(), BTreeSet::new());
        while !todo.is_empty() {
            seen.extend(todo.iter().copied());
            if seen.len() > LONGEST {
                return Ok(true);
            }
            let mut next = Vec::new();
            let found = match self.reader.events(self.nid, &todo).await {
                // Nobody knows any more.
                Err(chappe_store::Error::Gone) => return Ok(true),
                found => found?,
            };
            for (meta, stored) in found.into_iter().filter(|(meta, _)| meta.before.line != main) {
                if meta.prev.len() < parsed(self.rules, &stored)?.prev_events().len() {
                    return Ok(true);
                }
                next.extend(meta.prev.into_iter().filter(|num| !seen.contains(num)));
            }
            todo = next;
        }
        Ok(false)
    }

    /// The state before an event of whose previous events only `prev` are here: what was told, and what these come to.
    pub(super) async fn told_beside(
        self,
        prev: &[EventNum],
        told: StateBefore,
    ) -> Result<(Self, StateBefore)> {
        if prev.is_empty() {
            return Ok((self, told));
        }
        let (mut desk, told) = self.on_disk(told).await?;
        let metas = desk.reader.event_metas(desk.nid, prev).await?;
        let refs: BTreeSet<StateRef> = metas.iter().map(|meta| meta.after).chain([told.at]).collect();
        let before = desk.state_of(&refs.into_iter().collect::<Vec<_>>()).await?;
        Ok((desk, before))
    }

    /// Has a state on disk: only what is there can be resolved.
    pub(super) async fn on_disk(self, state: StateBefore) -> Result<(Self, StateBefore)> {
        if state.committed {
            return Ok((self, state));
        }
        let (inner, room, charged) = (self.inner, self.room_id.clone(), self.charged.clone());
        inner.store.commit(self.seal()).await?;
        let mut desk = Desk::open(inner, &room).await?;
        desk.charged = charged;
        Ok((desk, StateBefore { committed: true, ..state }))
    }

    /// Some keys of what a state on disk and those of all heads come to: who came while this server was away is in none of
    /// the heads, and whoever is put out there stays out.
    pub(super) async fn held_beside(&self, told: StateRef, keys: &[RuleKey]) -> Result<Held> {
        let mut refs = vec![told];
        for head in self.reader.event_metas(self.nid, &self.head.extremities).await? {
            if !refs.contains(&head.after) {
                refs.push(head.after);
            }
        }
        let mut held = self.held_at(told, keys).await?;
        for change in self.resolved_changes(&refs).await? {
            let key = rule_key(&change.key);
            if !keys.contains(&key) {
                continue;
            }
            held.0.remove(&key);
            let num = change.num.some();
            let nums: Vec<EventNum> = num.into_iter().collect();
            let pdu = self.state_events(&nums).await?.pop();
            held.0.extend(num.zip(pdu).map(|found| (key, found)));
        }
        Ok(held)
    }

    /// Whether all heads hold, in the place of a state event, what was there before it: whatever is said to follow the event, the
    /// states that were told know nothing of it.
    pub(super) async fn is_passed_over(
        &self,
        pdu: &Pdu,
        before: StateRef,
        heads: &[EventMeta],
    ) -> Result<bool> {
        let Some((kind, key)) = pdu.state() else { return Ok(false) };
        let key = [StateKey::new(kind, key)];
        let old = self.state.state_at(&self.reader, before, &key).await?;
        for head in heads {
            if self.state.state_at(&self.reader, head.after, &key).await? != old {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the current state would be another one.
    pub(super) async fn changes_something(&self, changes: &[StateChange]) -> Result<bool> {
        let keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
        let now = self.state.state_at(&self.reader, self.state.current(), &keys).await?;
        Ok(changes.iter().zip(now).any(|(change, now)| change.num.some() != now))
    }
}
