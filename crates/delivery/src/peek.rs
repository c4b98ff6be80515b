//! Looking into one room without being in it: what was said there since a token, waiting for it if need be.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chappe_rooms::{Actor, Bundle, Form, View};
use chappe_store::{EventNum, Position, RoomNid};
use parking_lot::Mutex;
use ruma::RoomId;
use tokio::sync::Notify;

use crate::{Delivery, Error, SyncToken, sync::Json};

/// Events of an answer at most.
const MOST: usize = 100;

/// What was said in a room.
#[derive(Debug)]
pub struct Peeked {
    /// The events, oldest first, with their room.
    pub events: Vec<Json>,
    /// Where to go on.
    pub next: SyncToken,
}

/// Rooms that somebody looks into right now.
#[derive(Default)]
pub(crate) struct Peeks(Mutex<HashMap<RoomNid, (usize, Arc<Notify>)>>);

/// Somebody looking into a room, for as long as this lives.
struct Peek<'a> {
    peeks: &'a Peeks,
    nid: RoomNid,
    notify: Arc<Notify>,
}

impl Peeks {
    fn enter(&self, nid: RoomNid) -> Peek<'_> {
        let mut all = self.0.lock();
        let (count, notify) = all.entry(nid).or_default();
        *count += 1;
        Peek { peeks: self, nid, notify: notify.clone() }
    }

    /// Something happened in a room: one look-up where nobody looks into it.
    pub(crate) fn touch(&self, nid: RoomNid) {
        if let Some((_, notify)) = self.0.lock().get(&nid) {
            notify.notify_waiters();
        }
    }
}

impl Drop for Peek<'_> {
    fn drop(&mut self) {
        let mut all = self.peeks.0.lock();
        if let Some((count, _)) = all.get_mut(&self.nid) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.nid);
            }
        }
    }
}

impl Delivery {
    /// The token of this moment: what was acknowledged before this call is behind it.
    pub fn now(&self) -> SyncToken {
        let position = *self.0.store.visible().borrow();
        self.token(position)
    }

    fn token(&self, position: Position) -> SyncToken {
        let fleeting = self.0.wake.fleeting();
        SyncToken { position, epoch: self.0.typing.epoch, fleeting, to_device: None }
    }

    /// What was said in a room since a token, as far as the user may see it; waits for it if there is nothing.
    /// Without a token: since now.
    ///
    /// Specification: client-server API, "Room previews" (`GET /events` with a room).
    pub async fn peek(
        &self,
        actor: &Actor,
        room: &RoomId,
        since: Option<SyncToken>,
        timeout: Duration,
    ) -> Result<Peeked, Error> {
        let visible = *self.0.store.visible().borrow();
        let mut after = since.map_or(visible, |since| since.position);
        if after > visible {
            return Err(Error::BadToken);
        }
        let nid = self.looked_into(actor, room).await?.nid;
        let longest = Duration::from_secs(self.0.config.get().longest_wait_seconds);
        let deadline = self.0.world.instant() + timeout.min(longest);
        let peek = self.0.wake.peeks.enter(nid);
        let mut over = timeout.is_zero();
        loop {
            let changed = peek.notify.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // Boxed: a waiting request shall not keep the room that looking takes.
            let peeked = Box::pin(self.since(actor, room, after)).await?;
            if !peeked.events.is_empty() || over {
                return Ok(peeked);
            }
            if peeked.next.position > after && self.0.wake.room_changed(nid, peeked.next.position) {
                // All of a page was of no concern: there may be more.
                after = peeked.next.position;
                continue;
            }
            after = peeked.next.position;
            tokio::select! {
                () = changed => {}
                () = self.0.world.sleep_until(deadline) => over = true,
                () = self.0.world.stopping() => over = true,
            }
        }
    }

    /// The room, if the user may ask about it at all.
    async fn looked_into(&self, actor: &Actor, room: &RoomId) -> Result<View<'_>, Error> {
        let refusal = || chappe_rooms::Error::Forbidden("you are not a member of this room".to_owned());
        let view = match self.0.rooms.view(room).await {
            Err(chappe_rooms::Error::NotFound(_)) => return Err(refusal().into()),
            view => view?,
        };
        view.access(&actor.user).await?;
        Ok(view)
    }

    async fn since(&self, actor: &Actor, room: &RoomId, after: Position) -> Result<Peeked, Error> {
        let view = self.looked_into(actor, room).await?;
        let from = view.reader.ordinal_after(view.nid, after).await?;
        let mut rows = view.reader.timeline_forward(view.nid, from, MOST).await?;
        let mut next = view.reader.position();
        if let Some(last) = rows.last().map(|row| row.position).filter(|_| rows.len() == MOST) {
            // What one commit wrote is not taken apart: a token stands between commits.
            if rows.first().is_some_and(|first| first.position < last) {
                rows.retain(|row| row.position < last);
                next = Position(last.0 - 1);
            } else {
                next = last;
            }
        }
        let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        let ignored = Arc::new(self.0.accounts.ignored_users(&view.reader, &actor.user).await?);
        view.ignores(&actor.user, ignored.clone());
        let mut seen = view.visible(&actor.user, view.load(&nums).await?).await?;
        seen.retain(|seen| {
            let pdu = &seen.event.pdu;
            pdu.state_key().is_some() || !ignored.contains(pdu.sender())
        });
        let events = view.render(actor, &seen, Form::Full, Bundle::All).await?;
        Ok(Peeked { events, next: self.token(next) })
    }
}
