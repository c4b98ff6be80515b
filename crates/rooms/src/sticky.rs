//! Sticky events (MSC4354): those that every device in the room gets for a while, whatever its timeline limit.

use chappe_rules::{
    Pdu,
    client::{Form, Unsigned},
};
use chappe_store::{
    EventNum, Position, Tx,
    sticky::{Sticky, StickyRow},
};
use ruma::UserId;
use serde_json::value::RawValue;

use crate::{
    Result, Rooms,
    desk::Desk,
    read::view::{Event, View},
};

/// Ended ones forgotten at once.
const AT_ONCE: usize = 1_000;
/// Sticky events of one room looked at: the newest.
const MOST: usize = 1_000;
/// Of so many, those of one sender at most; what they send beyond that is a plain event.
const OF_ONE: usize = 100;
/// Rows read at once.
const PAGE: usize = 500;

/// A sticky event.
#[derive(Clone, Debug)]
pub struct StickyEvent {
    /// The commit that put it into the room.
    pub position: Position,
    /// The event.
    pub event: Event,
    /// For how many milliseconds more.
    pub ttl_ms: u64,
}

impl Desk<'_> {
    /// Notes an event that is sticky for a while from now on; says whether it is.
    pub(crate) async fn stick(&mut self, pdu: &Pdu, num: EventNum) -> Result<bool> {
        let Some(duration) = pdu.sticky_ms() else { return Ok(false) };
        let now = self.inner.world.now();
        // Nobody makes an event stick for longer by dating it ahead.
        let until = now.min(u64::from(pdu.origin_server_ts().0)).saturating_add(duration.into());
        let sticks = until > now && !self.is_flooded_by(pdu.sender(), now).await?;
        if sticks {
            self.tx.put_sticky(self.nid, num, until);
        }
        Ok(sticks)
    }

    /// Whether so many of the newest sticky events are of one sender that more would hide those of others.
    async fn is_flooded_by(&self, sender: &UserId, now: u64) -> Result<bool> {
        let mut rows = self.reader.newest_sticky(self.nid, MOST).await?;
        rows.retain(|(_, _, until)| *until > now);
        if rows.len() < OF_ONE {
            return Ok(false);
        }
        let nums: Vec<EventNum> = rows.iter().map(|(_, num, _)| *num).collect();
        let of_sender = self.pdus(&nums).await?.into_iter().filter(|pdu| pdu.sender() == sender);
        Ok(of_sender.count() >= OF_ONE)
    }
}

impl View<'_> {
    /// The oldest `most` of the sticky events that came after a position, oldest first; more if one commit brought more.
    /// For a `user` who is joined: history visibility does not hide them.
    pub async fn sticky_after(
        &self,
        user: &UserId,
        mut after: Position,
        most: usize,
    ) -> Result<Vec<StickyEvent>> {
        let (now, mut sticky) = (self.inner.world.now(), Vec::new());
        loop {
            let mut rows = self.reader.sticky_after(self.nid, after, PAGE).await?;
            let more = rows.len() == PAGE;
            let Some((last, ..)) = rows.last().copied() else { return Ok(sticky) };
            if more && rows.first().is_some_and(|(at, ..)| *at < last) {
                // The rest of the last commit may be on the next page.
                rows.retain(|(at, ..)| *at < last);
            }
            after = rows.last().map_or(last, |(at, ..)| *at);
            sticky.extend(self.still_sticky(user, rows, now).await?);
            if let Some(cut) = most.checked_sub(1).and_then(|last| sticky.get(last)).map(|one| one.position) {
                sticky.retain(|one| one.position <= cut);
                return Ok(sticky);
            }
            if !more {
                return Ok(sticky);
            }
        }
    }

    /// The newest sticky events that came after a position, oldest first, as [`View::sticky_after`].
    pub async fn newest_sticky_after(&self, user: &UserId, after: Position) -> Result<Vec<StickyEvent>> {
        let mut rows = self.reader.newest_sticky(self.nid, MOST).await?;
        rows.retain(|(at, ..)| *at > after);
        rows.reverse();
        self.still_sticky(user, rows, self.inner.world.now()).await
    }

    async fn still_sticky(
        &self,
        user: &UserId,
        mut rows: Vec<StickyRow>,
        now: u64,
    ) -> Result<Vec<StickyEvent>> {
        rows.retain(|(_, _, until)| *until > now);
        let nums: Vec<EventNum> = rows.iter().map(|(_, num, _)| *num).collect();
        let mut events = self.load(&nums).await?;
        self.veil_earlier(user, events.iter_mut().collect()).await?;
        let mut sticky = Vec::new();
        for ((position, _, until), event) in rows.into_iter().zip(events) {
            if event.pdu.sticky_ms().is_some() && self.tells(&event).await? {
                sticky.push(StickyEvent { position, event, ttl_ms: until - now });
            }
        }
        Ok(sticky)
    }

    /// A sticky event for a client.
    pub fn render_sticky(&self, sticky: &StickyEvent) -> Result<Box<RawValue>> {
        let age = self.age(&sticky.event);
        let sticky_ttl_ms = Some(sticky.ttl_ms);
        let unsigned = Unsigned { age: Some(age), sticky_ttl_ms, ..Unsigned::default() };
        sticky.event.for_client(Form::Sync, &unsigned)
    }

    /// Says in `unsigned` for how long those of the events that are sticky still are.
    pub(crate) async fn add_sticky_times(&self, events: &[&Event], all: &mut [Unsigned]) -> Result<()> {
        let sticky: Vec<usize> = (0..events.len()).filter(|&i| events[i].pdu.sticky_ms().is_some()).collect();
        if sticky.is_empty() {
            return Ok(());
        }
        let key = |&i: &usize| (self.nid, events[i].meta.position.0, events[i].num);
        let keys: Vec<_> = sticky.iter().map(key).collect();
        let now = self.inner.world.now();
        for (i, until) in sticky.into_iter().zip(self.reader.get_many::<Sticky>(&keys).await?) {
            all[i].sticky_ttl_ms = until.and_then(|until| until.checked_sub(now)).filter(|left| *left > 0);
        }
        Ok(())
    }
}

impl Rooms {
    /// Forgets sticky events that are no longer. Gives how many.
    pub(crate) async fn sweep_sticky(&self) -> Result<usize> {
        let mut swept = 0;
        loop {
            let mut tx = Tx::new();
            let count = tx.forget_sticky(&self.0.store.read(), self.0.world.now(), AT_ONCE).await?;
            if count == 0 {
                return Ok(swept);
            }
            self.0.store.commit(tx).await?;
            swept += count;
        }
    }
}
