//! Redacting with a kick or a ban what its target said since coming in (MSC4293), without events that say so.
//!
//! The membership event takes the place of the redaction: [`EventMeta::redacted_by`] names it.

use std::collections::{BTreeMap, BTreeSet};

use chappe_rules::{
    Pdu,
    access::{RETENTION, RULES},
    power::Power,
    redact,
};
use chappe_store::{EventMeta, EventNum, LogEntry, Membership, StateRef, timeline::TimelineRow};
use ruma::{
    OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
};
use serde::Deserialize;

use crate::{
    Result,
    desk::{Desk, membership_of, parsed},
    effects::relation_row,
};

/// The field of a kick or a ban, and of the requests for them.
pub const REDACT_EVENTS: &str = "org.matrix.msc4293.redact_events";

/// Events of the room looked through, at most.
const LOOKED_THROUGH: usize = 20_000;
/// Events redacted in one commit, at most.
const MOST: usize = 5_000;
/// Events looked at in one round trip.
const PAGE: usize = 500;
/// Changes of name and picture between coming in and going that are followed.
const NAMES: usize = 100;

#[derive(Deserialize)]
struct Wiping {
    #[serde(default, rename = "org.matrix.msc4293.redact_events")]
    redact_events: bool,
}

/// Whose events a membership event asks to have redacted.
fn target_of(pdu: &Pdu) -> Option<OwnedUserId> {
    let (kind, key) = pdu.state()?;
    if kind != StateEventType::RoomMember || key == pdu.sender().as_str() {
        return None;
    }
    let out = matches!(membership_of(pdu), Membership::Leave | Membership::Ban);
    let asks = out && pdu.content_as::<Wiping>().is_some_and(|content| content.redact_events);
    if asks { UserId::parse(key).ok() } else { None }
}

/// Whether a user may redact what others say, and say so.
fn may_redact(power: &Power, user: &UserId) -> bool {
    let kind = TimelineEventType::RoomRedaction;
    let needed = power.to_redact().max(power.to_send(&kind, None));
    power.of(user) >= UserPowerLevel::Int(needed)
}

/// A kick or ban that redacts, and the time in the room that it ends.
struct Wipe {
    by: EventNum,
    /// The memberships of its target from coming in on.
    stay: BTreeSet<EventNum>,
}

impl Desk<'_> {
    /// Redacts what the target of a kick or ban said, if the event asks for it and its sender may.
    pub(crate) async fn wipe(&mut self, pdu: &Pdu, num: EventNum, before: StateRef) -> Result<()> {
        let Some(target) = target_of(pdu) else { return Ok(()) };
        let Some(stay) = self.ended_stay(pdu, &target, before).await? else { return Ok(()) };
        let mut redacted = Vec::new();
        self.walk_back(&stay, |desk, row, pdu, mut meta| {
            let spared = pdu.sender() != target
                || stay.contains(&row.num)
                || *pdu.kind() == TimelineEventType::RoomCreate
                || desk.is_lasting(pdu)
                || meta.redacted_by.some().is_some()
                || desk.redacted.contains(&row.num);
            if spared || redacted.len() >= MOST {
                return;
            }
            if let Some(relation) = relation_row(pdu, row.num, row.ordinal) {
                desk.tx.delete_relation(desk.nid, &relation);
            }
            desk.retell(pdu);
            redacted.push(row.num.0);
            desk.redacted.insert(row.num);
            desk.note_redacted(pdu);
            meta.redacted_by = num;
            desk.tx.update_event(desk.nid, row.num, &meta);
        })
        .await?;
        if !redacted.is_empty() {
            self.tx.log(LogEntry::Purged { room: self.nid.0, events: redacted });
        }
        Ok(())
    }

    /// Takes back what [`Desk::wipe`] did for an event that loses its place.
    pub(crate) async fn unwipe(&mut self, pdu: &Pdu, num: EventNum, before: StateRef) -> Result<()> {
        let Some(target) = target_of(pdu) else { return Ok(()) };
        let Some(stay) = self.ended_stay(pdu, &target, before).await? else { return Ok(()) };
        let mut back = Vec::new();
        self.walk_back(&stay, |_, row, _, meta| {
            if meta.redacted_by == num {
                back.push((row.num, meta));
            }
        })
        .await?;
        for (num, meta) in &mut back {
            self.unredact(*num, meta).await?;
        }
        if !back.is_empty() {
            let events = back.into_iter().map(|(num, _)| num.0).collect();
            self.tx.log(LogEntry::Purged { room: self.nid.0, events });
        }
        Ok(())
    }

    /// The kick or ban by which an event is redacted that came after it, if that is what became of its sender. `before` is
    /// the state before the late event.
    pub(crate) async fn wiped_already(&self, pdu: &Pdu, before: StateRef) -> Result<EventNum> {
        let senders = [pdu.sender().to_owned()];
        let wipes = self.wipes_of(&senders).await?;
        self.wiped_by(&wipes, pdu, before).await
    }

    /// As [`Desk::wiped_already`] for events of several senders: one look at the state for all of them.
    pub(crate) async fn wipes_of(&self, senders: &[OwnedUserId]) -> Result<Wipes> {
        let keys: Vec<_> =
            senders.iter().map(|sender| (StateEventType::RoomMember, sender.to_string())).collect();
        let held = self.held(&keys).await?;
        let mut wipes = Wipes::default();
        for (sender, key) in senders.iter().zip(&keys) {
            let Some((by, pdu)) = held.0.get(key) else { continue };
            if target_of(pdu).is_none() {
                continue;
            }
            let before = self.reader.event_meta(self.nid, *by).await?.before;
            if let Some(stay) = self.ended_stay(pdu, sender, before).await? {
                wipes.0.insert(sender.clone(), Wipe { by: *by, stay });
            }
        }
        Ok(wipes)
    }

    /// Emptied, these would say something else about the room: to this network, see [`chappe_rules::access`], or to all servers,
    /// of which those that take no kick for a redaction would go on judging by them.
    fn is_lasting(&self, pdu: &Pdu) -> bool {
        let Some((kind, _)) = pdu.state() else { return false };
        let name = kind.to_string();
        let binds = self.inner.access().is_some() && (name == RULES || name == RETENTION);
        binds || kind == StateEventType::RoomServerAcl || redact::takes_what_is_read(self.rules, pdu)
    }

    /// The event among [`Wipes`] by which an event is redacted.
    pub(crate) async fn wiped_by(&self, wipes: &Wipes, pdu: &Pdu, before: StateRef) -> Result<EventNum> {
        let Some(wipe) = wipes.0.get(pdu.sender()).filter(|_| !self.is_lasting(pdu)) else {
            return Ok(EventNum::NONE);
        };
        let key = (StateEventType::RoomMember, pdu.sender().to_string());
        let then = self.held_at(before, std::slice::from_ref(&key)).await?;
        let said_then = then.num(&key).is_some_and(|member| wipe.stay.contains(&member));
        Ok(if said_then { wipe.by } else { EventNum::NONE })
    }

    /// The memberships of `target`, from coming in on, that a kick or ban with `before` the state before it ends; `None`
    /// if the target was not in, or the sender may not redact.
    async fn ended_stay(
        &self,
        pdu: &Pdu,
        target: &UserId,
        before: StateRef,
    ) -> Result<Option<BTreeSet<EventNum>>> {
        if !self.power_at(before).await?.is_some_and(|power| may_redact(&power, pdu.sender())) {
            return Ok(None);
        }
        let key = (StateEventType::RoomMember, target.to_string());
        let (mut stay, mut at) = (BTreeSet::new(), before);
        while stay.len() < NAMES {
            let held = self.held_at(at, std::slice::from_ref(&key)).await?;
            let Some((num, member)) = held.0.get(&key) else { break };
            if membership_of(member) != Membership::Join || !stay.insert(*num) {
                break;
            }
            at = self.reader.event_meta(self.nid, *num).await?.before;
        }
        Ok((!stay.is_empty()).then_some(stay))
    }

    /// Goes through the timeline from its end back to the first of `stay`.
    async fn walk_back(
        &mut self,
        stay: &BTreeSet<EventNum>,
        mut each: impl FnMut(&mut Self, TimelineRow, &Pdu, EventMeta),
    ) -> Result<()> {
        let mut left = stay.clone();
        let (mut before, mut looked) = (i64::MAX, 0);
        while looked < LOOKED_THROUGH && !left.is_empty() {
            let rows = self.reader.timeline_back(self.nid, before, PAGE).await?;
            let Some(last) = rows.last() else { break };
            (before, looked) = (last.ordinal, looked + rows.len());
            let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
            let events = self.reader.events_once(self.nid, &nums).await?;
            for (row, (meta, stored)) in rows.into_iter().zip(events) {
                left.remove(&row.num);
                if left.is_empty() {
                    return Ok(());
                }
                let pdu = parsed(self.rules, &stored)?;
                each(self, row, &pdu, meta);
            }
        }
        Ok(())
    }
}

/// Kicks and bans that redact, by whom they hit.
#[derive(Default)]
pub(crate) struct Wipes(BTreeMap<OwnedUserId, Wipe>);
