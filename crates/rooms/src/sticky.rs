//! Sticky events (MSC4354): those that every device in the room gets for a while, whatever its timeline limit.

use chappe_rules::{
    Pdu,
    client::{Form, Unsigned},
};
use chappe_store::{EventNum, Position, Tx, sticky::Sticky};
use serde_json::value::RawValue;

use crate::{
    Result, Rooms,
    desk::Desk,
    read::view::{Event, View},
};

/// Ended ones forgotten at once.
const AT_ONCE: usize = 1_000;
/// Sticky events of one room in one answer: the newest.
const MOST: usize = 1_000;

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
    pub(crate) fn stick(&mut self, pdu: &Pdu, num: EventNum) -> bool {
        let Some(duration) = pdu.sticky_ms() else { return false };
        let now = self.inner.world.now();
        // Nobody makes an event stick for longer by dating it ahead.
        let until = now.min(u64::from(pdu.origin_server_ts().0)).saturating_add(duration.into());
        let sticks = until > now;
        if sticks {
            self.tx.put_sticky(self.nid, num, until);
        }
        sticks
    }
}

impl View<'_> {
    /// The sticky events that came after a position, oldest first. For whoever is joined: history visibility does not
    /// hide them.
    pub async fn sticky_after(&self, after: Position) -> Result<Vec<StickyEvent>> {
        let now = self.inner.world.now();
        let mut rows = self.reader.sticky_after(self.nid, after, usize::MAX).await?;
        rows.retain(|(_, _, until)| *until > now);
        rows.drain(..rows.len().saturating_sub(MOST));
        let nums: Vec<EventNum> = rows.iter().map(|(_, num, _)| *num).collect();
        let events = rows.into_iter().zip(self.load(&nums).await?);
        let sticky = events.filter(|(_, event)| event.pdu.sticky_ms().is_some());
        Ok(sticky
            .map(|((position, _, until), event)| StickyEvent { position, event, ttl_ms: until - now })
            .collect())
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
