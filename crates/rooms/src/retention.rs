//! What is said goes after a while (MSC1763): it is shown no more at once, and taken off the disk within the hour.
//!
//! What stays of an event is its redacted form: the room's graph has no hole, here or on other servers, and nothing of what
//! was said is left. State events stay whole. See ADR 21.

mod media;
mod worker;

use std::{
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use chappe_rules::{Pdu, access::RETENTION, redact, retention::Retention, retention::is_ahead};
use chappe_store::{
    EventMeta, EventNum, Keeping, RoomNid, StoredPdu, Tx,
    events::{EventMetas, EventPdus},
    expiry::CameLate,
    relations::{Relations, Threads},
    timeline::TimelineRow,
};
use ruma::{OwnedEventId, room_version_rules::RoomVersionRules};

pub use self::worker::ExpiryFigures;
pub(crate) use self::{media::named_media, worker::Done};
use crate::{
    Inner, Result,
    desk::{Desk, parsed},
    effects::relation_row,
    read::view::{Event, View},
};

/// How long what has expired in a room is gathered before it is taken off the disk.
pub(crate) const GATHER_MS: u64 = 60 * 60 * 1_000;
/// When a room is due whose time could not be told, as the clock could not be relied on: the worker, which waits until it can,
/// tells it first.
const UNTOLD: u64 = 1;
/// Events looked at under one turn, and taken away in one commit.
const BATCH: usize = 200;
/// Places looked at before which history is missing.
const GAPS: usize = 100;

/// When something was said: as its server claims, or when it came here if that was earlier.
fn said_at(pdu: &Pdu, meta: &EventMeta) -> u64 {
    let claimed = u64::from(pdu.origin_server_ts().0);
    if meta.came == 0 { claimed } else { claimed.min(meta.came) }
}

impl Inner {
    /// For how many milliseconds a room keeps what is said in it; none: for ever.
    pub(crate) fn lifetime(&self, keeping: &Keeping) -> Option<u64> {
        self.config().retention?.lifetime(keeping.said)
    }
}

impl View<'_> {
    /// For how many milliseconds the room keeps what is said in it; none: for ever.
    pub fn lifetime(&self) -> Option<u64> {
        self.inner.lifetime(&self.head.keeping)
    }

    /// Whether the room still keeps what was said at a time, in milliseconds since 1970.
    pub fn keeps(&self, at: u64) -> bool {
        self.lifetime().is_none_or(|lifetime| at.saturating_add(lifetime) > self.inner.world.now())
    }

    /// Whether an event is of a time of which the room keeps nothing.
    fn is_past(&self, event: &Event) -> bool {
        event.meta.expired || !self.keeps(event.said_at())
    }

    /// Whether what an event said is to be shown to nobody any more. State never expires.
    pub fn has_expired(&self, event: &Event) -> bool {
        event.pdu.state_key().is_none() && self.is_past(event)
    }

    /// An event without what it said, if that has expired.
    pub(crate) fn without_expired(&self, event: Event) -> Result<Event> {
        if !self.has_expired(&event) {
            return Ok(event);
        }
        let stored = Arc::new(stripped(self.rules, &event.pdu)?);
        Ok(Event { pdu: parsed(self.rules, &stored)?, stored, ..event })
    }

    /// Whether an event is part of the room's visible history, and still to be shown.
    pub fn shows(&self, event: &Event) -> bool {
        event.is_shown() && !self.has_expired(event)
    }

    /// The newest places among these before which history is missing, oldest first, that are not so old that none of it
    /// would be shown.
    pub(crate) async fn open_gaps(&self, among: impl RangeBounds<i64>) -> Result<Vec<i64>> {
        self.newest_open_gaps(among, GAPS).await
    }

    /// The newest of them.
    pub(crate) async fn newest_open_gap(&self, among: impl RangeBounds<i64>) -> Result<Option<i64>> {
        Ok(self.newest_open_gaps(among, 1).await?.pop())
    }

    async fn newest_open_gaps(&self, among: impl RangeBounds<i64>, limit: usize) -> Result<Vec<i64>> {
        let before = match among.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => i64::MAX,
        };
        let mut open = Vec::new();
        for gap in self.reader.gaps_back(self.nid, before, limit).await? {
            // What has expired for certain before one place has before all older ones.
            if !among.contains(&gap.ordinal) || self.is_all_past(gap.ordinal).await? {
                break;
            }
            open.push(gap.ordinal);
        }
        open.reverse();
        Ok(open)
    }

    /// Whether all that is missing before a place has expired for certain: so has something that this server's own users
    /// said after it. What others claim of the time would let one server hide what all said before.
    async fn is_all_past(&self, ordinal: i64) -> Result<bool> {
        if self.lifetime().is_none() {
            return Ok(false);
        }
        let rows = self.reader.timeline_forward(self.nid, ordinal, BATCH).await?;
        let nums: Vec<EventNum> = rows.into_iter().map(|row| row.num).collect();
        let ours = |event: &Event| event.pdu.sender().server_name() == self.inner.server;
        Ok(self.load_kept(&nums).await?.iter().any(|event| ours(event) && self.is_past(event)))
    }

    /// Takes away what has expired: what came late, and the next events of the room. Says in `keeping` how far it has come
    /// and when there is more to do.
    async fn expire_next(
        &self,
        tx: &mut Tx,
        keeping: &mut Keeping,
        (now, since): (u64, u64),
    ) -> Result<Vec<Gone>> {
        keeping.due = 0;
        let Some(lifetime) = self.lifetime() else { return Ok(Vec::new()) };
        if self.head.partial {
            // What it says of its lifetime is one server's word so far.
            keeping.due = now.saturating_add(GATHER_MS);
            return Ok(Vec::new());
        }
        let mut taking = Taking { tx, gone: Vec::new(), now, lifetime, since };
        let late = self.expire_late(&mut taking).await?;
        let next = if late == Some(now) { None } else { self.expire_in_order(&mut taking, keeping).await? };
        keeping.due = late.into_iter().chain(next).min().unwrap_or(0);
        Ok(taking.gone)
    }

    /// Takes away what came late and has expired. Gives when there is more.
    async fn expire_late(&self, taking: &mut Taking<'_>) -> Result<Option<u64>> {
        let rows = self.reader.came_late(self.nid, BATCH).await?;
        let is_last = rows.len() < BATCH;
        let due = |(said, _): &&(u64, EventNum)| said.saturating_add(taking.lifetime) <= taking.now;
        let expired: Vec<(u64, EventNum)> = rows.iter().take_while(due).copied().collect();
        let next = rows.get(expired.len()).map(|(said, _)| taking.looked_at(*said));
        if expired.is_empty() {
            return Ok(next);
        }
        let keys: Vec<(RoomNid, EventNum)> = expired.iter().map(|(_, num)| (self.nid, *num)).collect();
        let (metas, pdus) = self.reader.get_both::<EventMetas, EventPdus>(&keys, &keys).await?;
        for ((said, num), found) in expired.into_iter().zip(metas.into_iter().zip(pdus)) {
            taking.tx.delete::<CameLate>(&(self.nid, said, num));
            // It may have been purged meanwhile, or taken away in its turn.
            if let (Some(meta), Some(stored)) = found
                && !meta.expired
            {
                let pdu = parsed(self.rules, &stored)?;
                self.take(taking, (&pdu, num), &meta).await?;
            }
        }
        // Behind other rooms that wait.
        Ok(next.or_else(|| (!is_last).then_some(taking.now)))
    }

    /// Takes away what has expired among the next events. Gives when there is more.
    async fn expire_in_order(&self, taking: &mut Taking<'_>, keeping: &mut Keeping) -> Result<Option<u64>> {
        let from = (self.nid, keeping.next);
        let rows = self.reader.scan_from::<EventPdus>(&self.nid, &from, BATCH).await?;
        let nums: Vec<EventNum> = rows.iter().map(|((_, num), _)| *num).collect();
        let metas = self.reader.event_metas(self.nid, &nums).await?;
        let is_last = rows.len() < BATCH;
        for (((_, num), stored), mut meta) in rows.into_iter().zip(metas) {
            keeping.next = num;
            let pdu = parsed(self.rules, &stored)?;
            if pdu.state_key().is_none() && !meta.expired && !taking.has(num) {
                if is_ahead(said_at(&pdu, &meta), taking.now) {
                    // It was stored before it was noted when such events come.
                    meta.came = taking.now;
                    taking.tx.update_event(self.nid, num, &meta);
                }
                let said = said_at(&pdu, &meta);
                if said.saturating_add(taking.lifetime) > taking.now {
                    return Ok(Some(taking.looked_at(said)));
                }
                self.take(taking, (&pdu, num), &meta).await?;
            }
            keeping.next = EventNum(num.0.saturating_add(1));
        }
        // Behind other rooms that wait.
        Ok((!is_last).then_some(taking.now))
    }

    async fn take(
        &self,
        taking: &mut Taking<'_>,
        (pdu, num): (&Pdu, EventNum),
        meta: &EventMeta,
    ) -> Result<()> {
        self.take_away(taking.tx, (pdu, num), meta, &taking.gone).await?;
        self.release_media(taking.tx, pdu, num, taking.since).await?;
        let until = said_at(pdu, meta).saturating_add(taking.lifetime);
        taking.gone.push(Gone { num, id: pdu.event_id().to_owned(), until });
        Ok(())
    }

    /// Takes away what an event said, `gone` before it in the same commit.
    async fn take_away(
        &self,
        tx: &mut Tx,
        (pdu, num): (&Pdu, EventNum),
        meta: &EventMeta,
        gone: &[Gone],
    ) -> Result<()> {
        tx.strip_event(self.nid, num, meta, &stripped(self.rules, pdu)?);
        let Some(ordinal) = meta.ordinal else { return Ok(()) };
        tx.unlist_event(self.nid, &TimelineRow { ordinal, position: meta.position, num }, pdu.event_id());
        self.unrelate(tx, (pdu, num, ordinal), |parent| gone.iter().any(|gone| gone.id == *parent)).await
    }

    /// Takes an event that goes away from under its parent; `with_all` says whether everything under that one goes as well.
    pub(crate) async fn unrelate(
        &self,
        tx: &mut Tx,
        (pdu, num, ordinal): (&Pdu, EventNum, i64),
        with_all: impl Fn(&OwnedEventId) -> bool,
    ) -> Result<()> {
        let Some(relation) = relation_row(pdu, num, ordinal) else { return Ok(()) };
        if with_all(&relation.parent.0) {
            return Ok(());
        }
        let key = (self.nid, relation.parent.clone(), relation.rel_type.clone(), ordinal);
        if self.reader.get::<Relations>(&key).await?.is_some() {
            tx.delete_relation(self.nid, &relation);
        }
        let thread = (self.nid, relation.parent);
        if self.reader.get::<Threads>(&thread).await?.is_some_and(|latest| latest.value == num) {
            tx.delete::<Threads>(&thread);
        }
        Ok(())
    }
}

/// One commit that takes away what has expired in a room.
struct Taking<'t> {
    tx: &'t mut Tx,
    gone: Vec<Gone>,
    now: u64,
    lifetime: u64,
    /// Since when it is known which events name which media.
    since: u64,
}

impl Taking<'_> {
    fn has(&self, num: EventNum) -> bool {
        self.gone.iter().any(|gone| gone.num == num)
    }

    /// When that is taken away which was said at a time.
    fn looked_at(&self, said: u64) -> u64 {
        said.saturating_add(self.lifetime).saturating_add(GATHER_MS)
    }
}

/// An event that was taken away.
struct Gone {
    num: EventNum,
    id: OwnedEventId,
    /// When it had expired, in milliseconds since 1970.
    until: u64,
}

/// What is left of an event that has expired.
fn stripped(rules: &RoomVersionRules, pdu: &Pdu) -> Result<StoredPdu> {
    let left = redact::keeping_target(rules, pdu).map_err(|_| chappe_store::Error::Corrupt("event JSON"))?;
    Ok(StoredPdu::new(left.event_id().to_owned(), left.json()))
}

impl Event {
    /// When it was said, in milliseconds since 1970: as its server claims, or when it came here if that was earlier.
    pub fn said_at(&self) -> u64 {
        said_at(&self.pdu, &self.meta)
    }
}

impl Desk<'_> {
    /// What is noted of an event that claims to be of a time that has not come yet: when it came. Nobody has what they say
    /// kept for longer by dating it ahead. By a clock that is wrong it might go too early: it is noted later then.
    pub(crate) fn came(&self, pdu: &Pdu) -> u64 {
        let now = self.inner.world.settled_now();
        now.filter(|now| is_ahead(pdu.origin_server_ts().0.into(), *now)).unwrap_or(0)
    }

    /// Takes over what the room says now of how long it keeps what is said: the event with this number.
    pub(crate) async fn note_retention(&mut self, num: Option<EventNum>) -> Result<()> {
        let said = match num {
            Some(num) if !self.is_emptied(num).await? => self
                .pdus(&[num])
                .await?
                .first()
                .map_or_else(Retention::default, |pdu| Retention::of(pdu.content())),
            _ => Retention::default(),
        };
        self.keep_as(said);
        Ok(())
    }

    fn keep_as(&mut self, said: Retention) {
        let before = self.inner.lifetime(&self.head.keeping);
        self.head.keeping.said = said;
        let now = self.inner.lifetime(&self.head.keeping);
        if now.is_some() && now != before && (before.is_none() || self.head.keeping.due != 0) {
            self.look_for_expired(GATHER_MS);
        }
    }

    /// The same where the redaction of the event that says so is taken back.
    pub(crate) async fn recall_retention(&mut self, pdu: &Pdu, num: EventNum) -> Result<()> {
        if self.is_retention_now(pdu, num).await? {
            self.keep_as(Retention::of(pdu.content()));
        }
        Ok(())
    }

    /// The same where the event that says so was redacted.
    pub(crate) async fn forget_retention(&mut self, redacted: &Pdu, num: EventNum) -> Result<()> {
        if self.is_retention_now(redacted, num).await? {
            self.note_retention(None).await?;
        }
        Ok(())
    }

    async fn is_retention_now(&self, pdu: &Pdu, num: EventNum) -> Result<bool> {
        let is_retention =
            pdu.state().is_some_and(|(kind, key)| kind.to_string() == RETENTION && key.is_empty());
        let current = (RETENTION.into(), String::new());
        Ok(is_retention && self.held(std::slice::from_ref(&current)).await?.num(&current) == Some(num))
    }

    async fn is_emptied(&self, num: EventNum) -> Result<bool> {
        if self.redacted.contains(&num) {
            return Ok(true);
        }
        match self.reader.event_meta(self.nid, num).await {
            Ok(meta) => Ok(meta.redacted_by.some().is_some()),
            // It comes with this transaction.
            Err(chappe_store::Error::Gone) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the room looked at so many milliseconds from now, if not before.
    fn look_for_expired(&mut self, after: u64) {
        let at = self.inner.world.settled_now().map_or(UNTOLD, |now| now.saturating_add(after));
        self.look_at(at);
    }

    fn look_at(&mut self, at: u64) {
        let due = &mut self.head.keeping.due;
        *due = if *due == 0 { at } else { at.min(*due) };
    }

    /// Has a room looked at that has new events and was not to be, or when what came late is due.
    pub(crate) fn schedule_expiry(&mut self, had: u32) {
        let Some(lifetime) = self.inner.lifetime(&self.head.keeping) else { return };
        let kept = lifetime.saturating_add(GATHER_MS);
        if self.head.keeping.due == 0 && self.head.next_event > had {
            self.look_for_expired(kept);
        }
        if let Some(said) = self.said_first {
            let gathered = self.inner.world.settled_now().map(|now| now.saturating_add(GATHER_MS));
            self.look_at(gathered.map_or(UNTOLD, |gathered| said.saturating_add(kept).max(gathered)));
        }
    }

    /// Notes when that was said which comes long after it.
    pub(crate) fn note_late(&mut self, pdu: &Pdu, num: EventNum, meta: &EventMeta) {
        let said = said_at(pdu, meta);
        let is_late = said.saturating_add(GATHER_MS) < self.inner.world.now();
        if is_late && pdu.state_key().is_none() && self.inner.config.get().retention.is_some() {
            self.tx.put::<CameLate>(&(self.nid, said, num), &());
            self.said_first = Some(self.said_first.unwrap_or(said).min(said));
        }
    }

    /// Gives old history a place without what it said, if that has expired; says whether it has.
    pub(crate) fn place_stripped(&mut self, pdu: &Pdu, num: EventNum, meta: &EventMeta) -> Result<bool> {
        // It goes in its turn.
        let Some(now) = self.inner.world.settled_now() else { return Ok(false) };
        let lifetime = self.inner.lifetime(&self.head.keeping).filter(|_| pdu.state_key().is_none());
        if lifetime.is_none_or(|lifetime| said_at(pdu, meta).saturating_add(lifetime) > now) {
            return Ok(false);
        }
        self.tx.strip_event(self.nid, num, meta, &stripped(self.rules, pdu)?);
        self.tx.delete::<CameLate>(&(self.nid, said_at(pdu, meta), num));
        self.forget_media(pdu, num);
        self.stripped.push(num);
        Ok(true)
    }
}
