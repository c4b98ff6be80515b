//! Checked → Complete: everything the event builds on is here, fetched if need be, within bounds.

use std::collections::BTreeSet;

use chappe_rules::{Pdu, auth::events_needed};
use chappe_store::EventNum;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName, UInt, room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::{Budget, Checked, Outliers, check::parse};
use crate::{
    Error, Gap, Inner, Result,
    desk::{Desk, Source, is_placed},
};

/// Where the state before an event comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// From its previous events, all of which are here.
    Prevs,
    /// A peer told it, since previous events are missing: these events, all stored.
    Told(Vec<EventNum>),
}

/// An event with everything it builds on. Its auth events are stored; its previous events as far as they are here.
#[derive(Clone, Debug)]
pub(crate) struct Complete {
    pub(super) pdu: Pdu,
    pub(super) room: OwnedRoomId,
    pub(super) source: Source,
    pub(super) before: Before,
}

impl Checked {
    /// Finds out what is missing and fetches it.
    pub(crate) async fn complete(self, inner: &Inner, budget: &mut Budget) -> Result<Complete> {
        let source = super::source_for(inner, self.origin());
        self.complete_as(inner, budget, source).await
    }

    /// As [`Checked::complete`], with the event's source given.
    pub(crate) async fn complete_as(
        self,
        inner: &Inner,
        budget: &mut Budget,
        source: Source,
    ) -> Result<Complete> {
        let rules = Desk::open(inner, self.room()).await?.rules;
        inner.have_auth_events(&self, rules, budget).await?;
        let before = if inner.missing_prevs(&self).await?.is_empty() {
            Before::Prevs
        } else {
            Before::Told(inner.told_state(&self, rules, budget).await?)
        };
        Ok(Complete { room: self.room().to_owned(), pdu: self.pdu().clone(), source, before })
    }
}

impl Inner {
    /// Previous events that are not part of the room here.
    pub(crate) async fn missing_prevs(&self, checked: &Checked) -> Result<Vec<OwnedEventId>> {
        let desk = Desk::open(self, checked.room()).await?;
        let ids = checked.pdu().prev_events();
        let nums = desk.nums(ids).await?;
        let known: Vec<EventNum> = nums.iter().copied().flatten().collect();
        let metas = desk.reader.event_metas(desk.nid, &known).await?;
        let placed: BTreeSet<EventNum> =
            known.into_iter().zip(metas).filter(|(_, meta)| is_placed(meta)).map(|(n, _)| n).collect();
        let missing = |num: &Option<EventNum>| num.is_none_or(|num| !placed.contains(&num));
        Ok(ids.iter().zip(nums).filter(|(_, num)| missing(num)).map(|(id, _)| id.clone()).collect())
    }

    /// Asks the origin for the events between the heads here and the received event, and takes them.
    pub(super) async fn fill_gap(&self, checked: &Checked, budget: &mut Budget) -> Result<()> {
        if self.missing_prevs(checked).await?.is_empty() || budget.events == 0 {
            return Ok(());
        }
        let desk = Desk::open(self, checked.room()).await?;
        let (earliest, _) = desk.heads().await?;
        let (rules, depth) = (desk.rules, desk.head.depth);
        drop(desk);
        let limit = self.config.missing_events_batch;
        let gap = Gap {
            earliest,
            latest: vec![checked.pdu().event_id().to_owned()],
            limit,
            min_depth: UInt::try_from(depth.saturating_sub(u64::from(limit))).unwrap_or_default(),
        };
        let Ok(raws) = self.peers.missing_events(checked.origin(), checked.room(), gap).await else {
            return Ok(());
        };
        let raws: Vec<_> = raws.into_iter().take(limit.into()).collect();
        budget.events = budget.events.saturating_sub(raws.len());
        let mut found = self.check_raws(rules, checked.room(), &raws).await;
        found.sort_by_key(|proven| proven.pdu().depth());
        for proven in found {
            let found = Checked::from_handshake(checked.origin(), proven);
            let event = found.pdu().event_id().to_owned();
            if event == checked.pdu().event_id() {
                continue;
            }
            // The budget says that no further gap is filled: this recursion is one deep.
            if let Err(error) = Box::pin(self.take(found, budget)).await {
                tracing::debug!(%event, %error, "event of a gap not taken");
            }
        }
        Ok(())
    }

    /// Parses and checks what a peer sent; what is not an event of the room is left out.
    pub(crate) async fn check_raws(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        raws: &[Box<RawValue>],
    ) -> Vec<super::check::Proven> {
        let pdus: Vec<Pdu> = raws.iter().filter_map(|raw| parse(rules, room, raw).ok()).collect();
        self.check_all(rules, pdus).await.into_iter().filter_map(Result::ok).collect()
    }

    async fn missing_of(&self, room: &RoomId, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>> {
        let desk = Desk::open(self, room).await?;
        let nums = desk.nums(ids).await?;
        Ok(ids.iter().zip(nums).filter(|(_, num)| num.is_none()).map(|(id, _)| id.clone()).collect())
    }

    /// Makes sure that the auth events are stored.
    async fn have_auth_events(
        &self,
        checked: &Checked,
        rules: &'static RoomVersionRules,
        budget: &mut Budget,
    ) -> Result<()> {
        let needed = events_needed(rules, checked.pdu());
        let (origin, room) = (checked.origin(), checked.room());
        if self.missing_of(room, &needed).await?.is_empty() {
            return Ok(());
        }
        if budget.events > 0
            && let Ok(raws) = self.peers.event_auth(origin, room, checked.pdu().event_id()).await
        {
            let raws: Vec<_> = raws.into_iter().take(budget.events).collect();
            budget.events -= raws.len();
            let proven = self.check_raws(rules, room, &raws).await;
            self.store_outliers(room, Outliers::from(proven)).await?;
        }
        let missing = self.missing_of(room, &needed).await?;
        self.fetch_events(origin, room, &missing, budget).await?;
        match self.missing_of(room, &needed).await?.first() {
            None => Ok(()),
            Some(id) => Err(Error::HostilePeer(format!("auth event {id} could not be had"))),
        }
    }

    /// Fetches single events with their auth events, as outliers. What cannot be had is left out.
    async fn fetch_events(
        &self,
        origin: &ServerName,
        room: &RoomId,
        wanted: &[OwnedEventId],
        budget: &mut Budget,
    ) -> Result<()> {
        let rules = Desk::open(self, room).await?.rules;
        let (mut todo, mut raws) = (wanted.to_vec(), Vec::new());
        let mut asked: BTreeSet<OwnedEventId> = todo.iter().cloned().collect();
        while let Some(id) = todo.pop() {
            if budget.events == 0 {
                break;
            }
            budget.events -= 1;
            let Ok(raw) = self.peers.event(origin, &id).await else { continue };
            let Ok(pdu) = parse(rules, room, &raw) else { continue };
            if pdu.event_id() != id {
                continue;
            }
            for id in self.missing_of(room, pdu.auth_events()).await? {
                if asked.insert(id.clone()) {
                    todo.push(id);
                }
            }
            raws.push(raw);
        }
        let proven = self.check_raws(rules, room, &raws).await;
        self.store_outliers(room, Outliers::from(proven)).await
    }

    /// The state before the event as the origin says it, all of it stored here.
    async fn told_state(
        &self,
        checked: &Checked,
        rules: &'static RoomVersionRules,
        budget: &mut Budget,
    ) -> Result<Vec<EventNum>> {
        self.state_from(checked.origin(), checked.room(), checked.pdu().event_id(), rules, budget).await
    }

    /// The state before `at` as a peer says it, all of it stored here.
    pub(super) async fn state_from(
        &self,
        origin: &ServerName,
        room: &RoomId,
        at: &EventId,
        rules: &'static RoomVersionRules,
        budget: &mut Budget,
    ) -> Result<Vec<EventNum>> {
        let told = self.peers.state_ids(origin, room, at).await?;
        if told.state.len() + told.auth_chain.len() > self.config.join_state_limit {
            return Err(Error::HostilePeer("the state told is too large".to_owned()));
        }
        let mut wanted = told.auth_chain;
        wanted.extend(told.state.iter().cloned());
        let missing = self.missing_of(room, &wanted).await?;
        if missing.len() > 20 {
            let full = self.peers.state(origin, room, at).await?;
            let wanted: BTreeSet<OwnedEventId> = missing.into_iter().collect();
            let mut raws = full.auth_chain;
            raws.extend(full.state);
            let pdus: Vec<Pdu> = raws.iter().filter_map(|raw| parse(rules, room, raw).ok()).collect();
            let pdus = pdus.into_iter().filter(|pdu| wanted.contains(pdu.event_id())).collect();
            let proven: Vec<_> =
                self.check_all(rules, pdus).await.into_iter().filter_map(Result::ok).collect();
            self.store_outliers(room, Outliers::from(proven)).await?;
        } else {
            self.fetch_events(origin, room, &missing, budget).await?;
        }
        let nums = Desk::open(self, room).await?.nums(&told.state).await?;
        let state: Vec<EventNum> = nums.into_iter().flatten().collect();
        // A state that is mostly unknown is no state to judge by.
        if state.len() * 10 < told.state.len() * 9 || state.is_empty() {
            return Err(Error::HostilePeer("the state before the event could not be had".to_owned()));
        }
        Ok(state)
    }
}
