//! Checked → Complete: everything the event builds on is here, fetched if need be, within bounds.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chappe_rules::{
    Pdu,
    auth::events_needed,
    pdu::id_of,
    policy::{Bypass, Door},
    policy_server::PolicyServer,
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName, room_version_rules::RoomVersionRules};
use serde_json::value::RawValue;

use super::{Budget, Checked, Outliers, Payer, Proven, UNHELPED, check::parse, told::Told};
use crate::{
    Error, Inner, Occasion, PeerError, Result,
    desk::{Desk, Source, is_placed},
};

/// Events of a state that are asked for one by one at most.
const SINGLY: usize = 20;
/// For how long others are asked for what is before a membership that is handed in: its user waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the state before an event comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// From its previous events, all of which are here.
    Prevs,
    /// A peer told it, since previous events are missing.
    Told(Told),
    /// Previous events are missing, and the event is stored with what was told before.
    Stored,
    /// Previous events are missing and nobody tells it: what the room is like here counts.
    Now,
}

/// An event with everything it builds on. Its auth events are stored; its previous events as far as they are here.
#[derive(Clone, Debug)]
pub(crate) struct Complete {
    pub(crate) pdu: Pdu,
    pub(super) room: OwnedRoomId,
    pub(super) source: Source,
    pub(super) before: Before,
    pub(crate) rules: &'static RoomVersionRules,
    /// Through which door the access rules let it in, or not, and who gets past them.
    pub(crate) door: (Door, Bypass),
    /// The room's policy server as things are now.
    pub(crate) policy_server: Option<Arc<PolicyServer>>,
    /// Why the policy server is taken not to want it.
    pub(crate) unwanted: Option<String>,
    /// Whether an accepted event is known to rest on it.
    pub(super) followed: bool,
    /// Against whom large resolutions may count that it asks for; none: this server asked for it of its own accord.
    pub(super) charged: Option<Payer>,
}

impl Complete {
    /// An event that no policy server is asked about.
    pub(super) fn alone(pdu: Pdu, rules: &'static RoomVersionRules, source: Source, before: Before) -> Self {
        let room = pdu.room_id().to_owned();
        let door = (Door::Received, Bypass::None);
        let (policy_server, unwanted, followed, charged) = (None, None, false, None);
        Self { pdu, room, source, before, rules, door, policy_server, unwanted, followed, charged }
    }
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
        let desk = Desk::open(inner, self.room()).await?;
        let (rules, policy_server) = (desk.rules, desk.policy_server().await?);
        drop(desk);
        let before = if inner.missing_prevs(&self).await?.is_empty() {
            Before::Prevs
        } else if inner.is_stored_whole(&self).await? {
            Before::Stored
        } else {
            // Most of what justifies the event comes with the state before it.
            inner.told_before(&self, rules, budget).await?
        };
        inner.have_auth_events(&self, rules, budget).await?;
        let charged = budget.counted.clone();
        let complete = Complete::alone(self.pdu().clone(), rules, source, before);
        Ok(Complete { policy_server, charged, ..complete })
    }

    /// As [`Checked::complete`], of a membership that its user's server hands in: what is before it is had from others in the
    /// room, as the server that made the template may be gone. [`Error::Unreachable`] if they do not have it: yet another
    /// server may. What justifies it is known to whoever knows what is before it, or it is made up: [`Error::InvalidParam`].
    pub(crate) async fn complete_handed_in(self, inner: &Inner) -> Result<Complete> {
        inner.have_prevs(&self).await?;
        let desk = Desk::open(inner, self.room()).await?;
        let is_justified =
            desk.nums(&events_needed(desk.rules, self.pdu())).await?.iter().all(Option::is_some);
        // Of a room whose members are to come not all is known that is before the event.
        if !is_justified && !desk.head.partial {
            return Err(Error::InvalidParam("nobody knows what justifies the event".to_owned()));
        }
        drop(desk);
        let mut budget = Budget::with_nothing(self.origin());
        self.complete_as(inner, &mut budget, Source::PassedOn).await
    }

    /// As [`Checked::complete`] where nobody tells what was before the event.
    pub(super) async fn complete_by_now(self, inner: &Inner, budget: &mut Budget) -> Result<Complete> {
        let source = super::source_for(inner, self.origin());
        let desk = Desk::open(inner, self.room()).await?;
        let (rules, policy_server) = (desk.rules, desk.policy_server().await?);
        drop(desk);
        inner.have_auth_events(&self, rules, budget).await?;
        let complete = Complete::alone(self.pdu().clone(), rules, source, Before::Now);
        Ok(Complete { policy_server, ..complete })
    }
}

impl Inner {
    /// Previous events whose state is not known here.
    pub(crate) async fn missing_prevs(&self, checked: &Checked) -> Result<Vec<OwnedEventId>> {
        let desk = Desk::open(self, checked.room()).await?;
        let known = desk.known(checked.pdu().prev_events()).await?.into_iter();
        let missing = known.filter(|(_, known)| known.as_ref().is_none_or(|(_, meta)| !is_placed(meta)));
        Ok(missing.map(|(id, _)| id.clone()).collect())
    }

    /// Has what is missing before a membership that is handed in, unless that came before.
    async fn have_prevs(&self, checked: &Checked) -> Result<()> {
        if self.missing_prevs(checked).await?.is_empty() || self.is_stored_whole(checked).await? {
            return Ok(());
        }
        let (origin, now) = (checked.origin(), self.world.instant());
        // Who asks to come in has this server bother others only so often.
        if self.unhelped.holds(origin, now) {
            return Err(Error::Unreachable);
        }
        // Nor for several at a time.
        self.unhelped.add(origin.to_owned(), (now, PATIENCE));
        let mut budget = Budget::for_handed_in(&self.config(), origin);
        let asked = Box::pin(self.fill_elsewhere(checked, &mut budget));
        let is_filled = self.world.timeout(PATIENCE, asked).await.unwrap_or(Ok(false))?;
        if is_filled && self.missing_prevs(checked).await?.is_empty() {
            // The next one need not wait.
            self.unhelped.add(origin.to_owned(), (now, Duration::ZERO));
            return Ok(());
        }
        self.unhelped.add(origin.to_owned(), (now, UNHELPED));
        Err(Error::Unreachable)
    }

    /// Whether the event is stored with the state around it.
    async fn is_stored_whole(&self, checked: &Checked) -> Result<bool> {
        let desk = Desk::open(self, checked.room()).await?;
        let Some(num) = desk.own_num(checked.pdu()).await? else { return Ok(false) };
        Ok(is_placed(&desk.reader.event_meta(desk.nid, num).await?))
    }

    /// Parses and checks what a peer sent; what is not an event of the room is left out.
    pub(crate) async fn check_raws(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        raws: &[Box<RawValue>],
    ) -> Vec<Proven> {
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
        let spent = budget.events == 0;
        if !spent && let Ok(raws) = self.peers.event_auth(origin, room, checked.pdu().event_id()).await {
            let raws: Vec<_> = raws.into_iter().take(budget.events).collect();
            budget.events -= raws.len();
            let proven = self.check_raws(rules, room, &raws).await;
            self.store_outliers(room, Outliers::resting_under(rules, &needed, &proven)).await?;
        }
        let missing = self.missing_of(room, &needed).await?;
        let fetched = self.fetch_events((origin, room), &missing, &needed, budget).await;
        match self.missing_of(room, &needed).await?.first() {
            None => Ok(()),
            Some(_) if fetched.is_err() => fetched,
            // Nothing was asked for it: it may come another time.
            Some(_) if spent => Err(Error::Unreachable),
            Some(id) => Err(Error::HostilePeer(format!("auth event {id} could not be had"))),
        }
    }

    /// Fetches single events with their auth events, as outliers: as far as they are `of` some or these rest on them. What
    /// cannot be had is left out; [`Error::Unreachable`] if the server was away, and the rest is not asked for.
    pub(super) async fn fetch_events(
        &self,
        (origin, room): (&ServerName, &RoomId),
        wanted: &[OwnedEventId],
        of: &[OwnedEventId],
        budget: &mut Budget,
    ) -> Result<()> {
        let rules = Desk::open(self, room).await?.rules;
        let (mut todo, mut raws) = (wanted.to_vec(), Vec::new());
        let mut asked: BTreeSet<OwnedEventId> = todo.iter().cloned().collect();
        let mut done = Ok(());
        while let Some(id) = todo.pop() {
            if budget.events == 0 {
                break;
            }
            budget.events -= 1;
            let raw = match self.peers.event(origin, &id).await {
                Ok(raw) => raw,
                Err(PeerError::Unreachable(_)) => {
                    done = Err(Error::Unreachable);
                    break;
                }
                Err(_) => continue,
            };
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
        self.store_outliers(room, Outliers::resting_under(rules, of, &proven)).await?;
        done
    }

    /// Where the state before the event comes from if some of its previous events are missing: from the states that the
    /// origin says were before those; else, as the event itself may not be known to the origin yet, and where they are more
    /// than may be asked for or it does not say so, from the one that it says was before the event.
    async fn told_before(
        &self,
        checked: &Checked,
        rules: &'static RoomVersionRules,
        budget: &mut Budget,
    ) -> Result<Before> {
        let (origin, room) = (checked.origin(), checked.room());
        let missing = self.missing_prevs(checked).await?;
        // One is left for the event itself.
        let are_few = missing.len() == 1 || missing.len() < budget.states;
        let few = if are_few { missing } else { Vec::new() };
        let is_alone = checked.pdu().prev_events().len() == 1;
        for prev in few {
            let refusals = budget.refusals;
            match self.stage_told((origin, room, &prev), rules, budget).await {
                Ok(()) => {}
                Err(error @ (Error::Store(_) | Error::Retry)) => return Err(error),
                // Who fails or lies there does so of the event, too.
                Err(error) if is_alone && (budget.refusals == refusals || budget.states == 0) => {
                    return Err(error);
                }
                // Who refuses to say it may have rejected what is before the event, or have it as part of a state alone.
                Err(error) => {
                    tracing::debug!(event = %prev, %error, "the state after a missing event was not told");
                }
            }
        }
        if self.missing_prevs(checked).await?.is_empty() {
            return Ok(Before::Prevs);
        }
        let told = self.state_from(origin, room, checked.pdu().event_id(), rules, budget).await?;
        Ok(Before::Told(told))
    }

    /// Makes the state after an event known that has no place here: as the event changes what a peer says was before it.
    /// The event itself stays without a place. Nothing comes of an event that cannot be had or is not allowed.
    pub(super) async fn stage_told(
        &self,
        (origin, room, event): (&ServerName, &RoomId, &EventId),
        rules: &'static RoomVersionRules,
        budget: &mut Budget,
    ) -> Result<()> {
        let told = self.state_from(origin, room, event, rules, budget).await?;
        let wanted = [event.to_owned()];
        let missing = self.missing_of(room, &wanted).await?;
        self.fetch_events((origin, room), &missing, &wanted, budget).await?;
        let desk = Desk::open(self, room).await?;
        let Some(num) = desk.nums(&wanted).await?.into_iter().flatten().next() else { return Ok(()) };
        let Some(pdu) = desk.pdus(&[num]).await?.pop() else { return Ok(()) };
        drop(desk);
        let complete = Complete::alone(pdu, rules, Source::Elsewhere, Before::Told(told));
        self.stage(&complete).await.map(drop)
    }

    /// The state before `at` as a peer says it, all of it stored here.
    pub(super) async fn state_from(
        &self,
        origin: &ServerName,
        room: &RoomId,
        at: &EventId,
        rules: &'static RoomVersionRules,
        budget: &mut Budget,
    ) -> Result<Told> {
        let by = budget.counted.clone();
        if by.as_ref().is_some_and(|by| self.tellers.is_spent(by, self.world.instant())) {
            return Err(Error::Unreachable);
        }
        // No fault of the event: with more of the room here it may be taken another time.
        budget.states = budget.states.checked_sub(1).ok_or(Error::Unreachable)?;
        let told = self.peers.state_ids(origin, room, at).await;
        budget.refusals += usize::from(matches!(told, Err(PeerError::Refused { .. })));
        let told = told?;
        if told.state.len() + told.auth_chain.len() > self.config().join_state_limit {
            return Err(Error::HostilePeer("the state told is too large".to_owned()));
        }
        let mut wanted = told.auth_chain;
        wanted.extend(told.state.iter().cloned());
        let mut missing = self.missing_of(room, &wanted).await?;
        if missing.len() <= SINGLY {
            match self.fetch_events((origin, room), &missing, &told.state, budget).await {
                // A server that fails over one event may still tell the state whole.
                Ok(()) | Err(Error::Unreachable) => {}
                Err(error) => return Err(error),
            }
            missing = self.missing_of(room, &wanted).await?;
        }
        let (mut delivered, mut unnamed) = (BTreeSet::new(), 0);
        if !missing.is_empty() {
            // Also where single events were refused: of what a peer knows only as part of a state, it has no more to say.
            let occasion = if by.is_some() { Occasion::Received } else { Occasion::OwnAccord };
            let asked = (origin, room, at, occasion);
            let named: BTreeSet<OwnedEventId> = wanted.into_iter().collect();
            (delivered, unnamed) = self.fetch_state(asked, rules, (missing, &named), &told.state).await?;
        }
        let nums = Desk::open(self, room).await?.nums(&told.state).await?;
        let holes = told.state.iter().zip(&nums).filter(|(_, num)| num.is_none()).map(|(id, _)| id);
        let (refused, untold): (Vec<_>, Vec<_>) = holes.partition(|id| delivered.contains(*id));
        // What came and is no event here, or not rightly signed, is left out, as it is when joining; so is what may have come
        // under an id that nobody named, as where it is hashed otherwise there. What did not come leaves a hole, and a state
        // with a hole is none; nor is one that is mostly wrong.
        let left_out = refused.len() + untold.len();
        if untold.len() > unnamed || left_out * 10 > told.state.len() || told.state.is_empty() {
            return Err(Error::HostilePeer("the state before the event could not be had".to_owned()));
        }
        Ok(Told { events: nums.into_iter().flatten().collect(), by })
    }

    /// Fetches a whole state and stores those of its events that are `missing`, as far as they are `of` the state or these rest
    /// on them; gives which of the missing ones came, right or not, and how many came that are not among the `named` ones.
    async fn fetch_state(
        &self,
        (origin, room, at, occasion): (&ServerName, &RoomId, &EventId, Occasion),
        rules: &'static RoomVersionRules,
        (missing, named): (Vec<OwnedEventId>, &BTreeSet<OwnedEventId>),
        of: &[OwnedEventId],
    ) -> Result<(BTreeSet<OwnedEventId>, usize)> {
        let full = self.peers.state(origin, room, at, occasion).await?;
        let missing: BTreeSet<OwnedEventId> = missing.into_iter().collect();
        let (mut pdus, mut delivered, mut unnamed) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for raw in full.auth_chain.iter().chain(&full.state) {
            match parse(rules, room, raw) {
                Ok(pdu) if missing.contains(pdu.event_id()) => pdus.push(pdu),
                Ok(pdu) if named.contains(pdu.event_id()) => {}
                Ok(pdu) => {
                    unnamed.insert(pdu.event_id().to_owned());
                }
                // Others may take it for an event.
                Err(_) => delivered.extend(id_of(rules, raw.get().as_bytes())),
            }
        }
        delivered.extend(pdus.iter().map(|pdu| pdu.event_id().to_owned()));
        let held = full.held;
        drop((full.auth_chain, full.state));
        pdus.retain(|pdu| pdu.state_key().is_some());
        let proven: Vec<_> = self.check_all(rules, pdus).await.into_iter().filter_map(Result::ok).collect();
        // Not before its keys are there: what is read at a time is bounded by what is held.
        drop(held);
        self.store_outliers(room, Outliers::resting_under(rules, of, &proven)).await?;
        Ok((delivered, unnamed.len()))
    }
}
