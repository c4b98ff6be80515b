//! One state out of several: only what conflicts is looked at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chappe_rules::{
    pdu::Judged,
    resolve::{Conflict, StateMap, relevant_keys, resolve},
};
use chappe_store::{Conflicted, EventNum, KeyChange, KeyId, StateChange, StateRef, state::StateKey};
use ruma::{EventId, OwnedEventId, events::TimelineEventType};

use crate::{
    Error, Result,
    desk::{Desk, rule_key, store_key},
};

/// Changes of a resolution that is remembered, at most.
const REMEMBERED: usize = 30;

impl Desk<'_> {
    /// What makes the current state the resolution of committed states.
    pub(super) async fn changes_to_states(&self, refs: &[StateRef]) -> Result<Vec<StateChange>> {
        let Some(first) = refs.first() else { return Ok(Vec::new()) };
        let diff = self.reader.state_diff(self.nid, self.state.current(), *first).await?;
        let ids: Vec<KeyId> = diff.iter().map(|change| change.key).collect();
        let keys = self.reader.state_keys(self.nid, &ids).await?;
        let change = |(key, KeyChange { old, new, .. })| (key, (Some(old), new));
        let mut target: BTreeMap<StateKey, (Option<EventNum>, EventNum)> =
            keys.into_iter().zip(diff).map(change).collect();
        for change in self.resolved_changes(refs).await? {
            // Where the first state is like the current one, another value is a change.
            target.entry(change.key).or_insert((None, change.num)).1 = change.num;
        }
        let changed = target.into_iter().filter(|(_, (old, new))| *old != Some(*new));
        Ok(changed.map(|(key, (_, num))| StateChange { key, num }).collect())
    }

    /// What makes the first of several committed states their resolution. Remembered: while a room has the same heads, each
    /// message that comes on one of them asks again.
    pub(super) async fn resolved_changes(&self, refs: &[StateRef]) -> Result<Vec<StateChange>> {
        // Until the members of a room are known, what was rejected may yet be allowed.
        if refs.len() < 2 || self.head.partial {
            return self.resolve_changes(refs).await;
        }
        let asked = (self.nid, refs.to_vec());
        if let Some(known) = self.inner.resolved.get(&asked) {
            return Ok(known.to_vec());
        }
        let changes = self.resolve_changes(refs).await?;
        if changes.len() <= REMEMBERED {
            self.inner.resolved.insert(asked, Arc::new(changes.clone()));
        }
        Ok(changes)
    }

    async fn resolve_changes(&self, refs: &[StateRef]) -> Result<Vec<StateChange>> {
        let conflicted = self.reader.conflicted(self.nid, refs).await?;
        if conflicted.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<KeyId> = conflicted.keys().copied().collect();
        let keys = self.reader.state_keys(self.nid, &ids).await?;
        let mut resolved = self.resolve(refs, &keys, &conflicted).await?;
        let mut changes = Vec::new();
        for (key, values) in keys.into_iter().zip(conflicted.values()) {
            let num = resolved.remove(&key).unwrap_or(EventNum::NONE);
            if values.first() != Some(&num) {
                changes.push(StateChange { key, num });
            }
        }
        changes.extend(self.brought_back(refs, resolved).await?);
        Ok(changes)
    }

    /// What of a resolution is where none of the states has anything: an event that conflicting ones rest on was allowed.
    async fn brought_back(
        &self,
        refs: &[StateRef],
        resolved: BTreeMap<StateKey, EventNum>,
    ) -> Result<Vec<StateChange>> {
        let is_unknown = |key: &StateKey| !self.knows_members && key.event_type() == "m.room.member";
        let (keys, nums): (Vec<StateKey>, Vec<EventNum>) =
            resolved.into_iter().filter(|(key, _)| !is_unknown(key)).unzip();
        // On keys that are not conflicted all states agree.
        let first = refs.first().copied().unwrap_or(StateRef::EMPTY);
        let held = self.reader.state_at(self.nid, first, &keys).await?;
        let found = keys.into_iter().zip(nums).zip(held).filter(|(_, held)| held.is_none());
        Ok(found.map(|((key, num), _)| StateChange { key, num }).collect())
    }

    async fn resolve(
        &self,
        refs: &[StateRef],
        keys: &[StateKey],
        conflicted: &Conflicted,
    ) -> Result<BTreeMap<StateKey, EventNum>> {
        let first = refs.first().copied().unwrap_or(StateRef::EMPTY);
        let difference = self.reader.auth_difference(self.nid, first, conflicted).await?;
        let in_conflict =
            conflicted.values().flatten().filter_map(|num| num.some()).map(|num| num.0).collect();
        let wants_subgraph =
            self.rules.state_res.v2_rules().is_some_and(|rules| rules.consider_conflicted_state_subgraph);
        let subgraph = if wants_subgraph {
            self.reader.conflicted_subgraph(self.nid, &in_conflict).await?
        } else {
            roaring::RoaringBitmap::new()
        };
        let full: Vec<EventNum> = (&(&in_conflict | &difference) | &subgraph).iter().map(EventNum).collect();
        let mut known = self.with_support(&full).await?;
        let pdus: Vec<_> = known.values().map(|(_, judged)| judged.pdu.clone()).collect();
        let states = self.reduced_states(refs, keys, conflicted, &pdus, &mut known).await?;
        let ids = |nums: &roaring::RoaringBitmap| {
            let wanted: BTreeSet<EventNum> = nums.iter().map(EventNum).collect();
            let named = known.iter().filter(|(_, (num, _))| wanted.contains(num));
            named.map(|(id, _)| id.clone()).collect::<BTreeSet<OwnedEventId>>()
        };
        let conflict = Conflict { states, auth_difference: ids(&difference), subgraph: ids(&subgraph) };
        let fetch = |id: &EventId| known.get(id).map(|(_, judged)| judged.clone());
        let resolved =
            resolve(self.rules, &conflict, fetch).map_err(|error| Error::HostilePeer(error.to_string()))?;
        let num = |(key, id): (chappe_rules::auth::StateKey, OwnedEventId)| {
            Some((store_key(&key), known.get(&id)?.0))
        };
        Ok(resolved.into_iter().filter_map(num).collect())
    }

    /// Events with what resolving reads of their past, by id: what they name, and the power levels before those, back to the
    /// first. Not all of their auth chains, which a member makes as long as it likes.
    async fn with_support(&self, nums: &[EventNum]) -> Result<HashMap<OwnedEventId, (EventNum, Judged)>> {
        let mut known = HashMap::new();
        let mut seen: roaring::RoaringBitmap = nums.iter().map(|num| num.0).collect();
        let (mut now, mut first) = (nums.to_vec(), true);
        while !now.is_empty() {
            let auth = self.reader.auth_events(self.nid, &now).await?;
            let judged = self.judged(&now).await?;
            let mut next = Vec::new();
            for ((num, judged), auth) in now.into_iter().zip(judged).zip(auth) {
                if first || *judged.pdu.kind() == TimelineEventType::RoomPowerLevels {
                    next.extend(auth.iter().copied().filter(|auth| seen.insert(auth.0)));
                }
                known.insert(judged.pdu.event_id().to_owned(), (num, judged));
            }
            (now, first) = (next, false);
        }
        Ok(known)
    }

    /// The states reduced to the conflicted keys and those that authorization reads.
    async fn reduced_states(
        &self,
        refs: &[StateRef],
        keys: &[StateKey],
        conflicted: &Conflicted,
        pdus: &[chappe_rules::Pdu],
        known: &mut HashMap<OwnedEventId, (EventNum, Judged)>,
    ) -> Result<Vec<StateMap>> {
        let in_conflict: BTreeSet<_> = keys.iter().map(rule_key).collect();
        let relevant: Vec<_> =
            relevant_keys(self.rules, pdus).into_iter().filter(|key| !in_conflict.contains(key)).collect();
        let first = refs.first().copied().unwrap_or(StateRef::EMPTY);
        let held = self.held_at(first, &relevant).await?;
        let common: Vec<EventNum> = held.0.values().map(|(num, _)| *num).collect();
        known.extend(self.with_support(&common).await?);
        let names: HashMap<EventNum, OwnedEventId> =
            known.iter().map(|(id, (num, _))| (*num, id.clone())).collect();
        let mut states = Vec::with_capacity(refs.len());
        for i in 0..refs.len() {
            let mut state: StateMap =
                held.0.iter().map(|(key, (_, pdu))| (key.clone(), pdu.event_id().to_owned())).collect();
            for (key, values) in keys.iter().zip(conflicted.values()) {
                if let Some(id) = values.get(i).and_then(|num| names.get(num)) {
                    state.insert(rule_key(key), id.clone());
                }
            }
            states.push(state);
        }
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    use ruma::events::StateEventType;
    use serde_json::json;

    use super::Desk;
    use crate::testing::{Town, actor};

    #[tokio::test]
    async fn a_member_with_a_long_past_costs_no_more_than_others() {
        let (town, alice) = (Town::new(), actor("alice"));
        let room = town.room(&alice, json!({ "preset": "public_chat" })).await;
        for n in 0..300 {
            let named = json!({ "membership": "join", "displayname": n.to_string() });
            town.set(&alice, &room, "m.room.member", alice.user.as_str(), named).await;
        }
        let view = town.rooms.view(&room).await.unwrap();
        let member = view.current(StateEventType::RoomMember, alice.user.as_str()).await.unwrap().unwrap();
        let desk = Desk::open(&town.rooms.0, &room).await.unwrap();
        let nums = desk.nums(&[member.pdu.event_id().to_owned()]).await.unwrap();
        let nums: Vec<_> = nums.into_iter().flatten().collect();
        assert!(desk.reader.auth_chain(desk.nid, &nums).await.unwrap().len() >= 300);
        let known = desk.with_support(&nums).await.unwrap();
        assert!(known.len() < 10, "{} events are read", known.len());
    }
}
