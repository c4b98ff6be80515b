//! Guests: which rooms they may enter, and when they have to go (client-server API, "Guest access").

use std::time::Duration;

use chappe_rules::{
    Pdu,
    policy::{Bypass, Door},
};
use chappe_store::{EventNum, Membership, RoomNid, Tx, members::ShutRooms};
use ruma::{OwnedServerName, OwnedUserId, RoomId, UserId, events::StateEventType};
use serde_json::{Map, Value, json};

use crate::{
    Actor, Draft, Error, Result, Rooms, Standing, View,
    author::By,
    desk::{Desk, membership_of},
    turn::ATTEMPTS,
};

const CAN_JOIN: &str = "can_join";
/// Members looked at in one round trip.
const PAGE: usize = 500;
/// Guests who leave in one commit at most.
const TOGETHER: usize = 100;
/// What the commit that shuts guests out gets until it is looked for.
const GATHER: Duration = Duration::from_secs(1);
/// The longest sleep of the worker.
const NAP: Duration = Duration::from_mins(10);
/// How long guests who cannot leave are tried again, in milliseconds.
const INSISTED_MS: u64 = 24 * 60 * 60 * 1_000;

fn lets_in(access: &Pdu) -> bool {
    let content = access.content_as::<Map<String, Value>>().unwrap_or_default();
    content.get("guest_access").and_then(Value::as_str) == Some(CAN_JOIN)
}

impl Rooms {
    /// Refuses a guest who would enter a room that does not let guests in, here or on the servers `via`.
    pub(super) async fn admit_guest(
        &self,
        actor: &Actor,
        room: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<()> {
        if actor.standing != Standing::Guest {
            return Ok(());
        }
        let lets_in = match self.resident_view(room).await? {
            Some(view) => view.summary().await?.room.guest_can_join,
            None => self.remote_summary(room, via).await.is_ok_and(|summary| summary.room.guest_can_join),
        };
        if lets_in { Ok(()) } else { Err(Error::NoGuests) }
    }

    /// Has guests leave the rooms that shut them out, until the server stops. One task of a server runs this.
    pub async fn run_guests(&self) {
        let world = &self.0.world;
        while !world.is_stopping() {
            if let Err(error) = self.dismiss_guests().await {
                tracing::warn!(%error, "guests stay in rooms that shut them out");
            }
            tokio::select! {
                () = world.stopping() => return,
                () = world.sleep(NAP) => {}
                () = self.shut_anew() => {}
            }
        }
    }

    async fn shut_anew(&self) {
        self.0.shut.notified().await;
        self.0.world.sleep(GATHER).await;
    }

    /// Has the guests of this server leave the rooms that shut them out.
    pub(crate) async fn dismiss_guests(&self) -> Result<()> {
        for (nid, since) in self.0.store.read().scan_all::<ShutRooms>(&()).await? {
            let dismissed = self.dismiss_from(nid).await;
            if let Err(error) = &dismissed {
                tracing::warn!(room = nid.0, %error, "a guest stays in a room that shut them out");
            }
            if dismissed.is_ok() || self.0.world.now().saturating_sub(since) > INSISTED_MS {
                let mut tx = Tx::new();
                tx.expect::<ShutRooms>(&nid, Some(&since)).delete::<ShutRooms>(&nid);
                match self.0.store.commit(tx).await {
                    // Shut anew meanwhile.
                    Ok(_) | Err(chappe_store::Error::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    async fn dismiss_from(&self, nid: RoomNid) -> Result<()> {
        let room = self.0.store.read().room_id(nid).await?;
        let mut done = Ok(());
        for guests in self.guests_shut_out(&room).await?.chunks(TOGETHER) {
            done = done.and(self.dismiss_some(&room, guests).await);
        }
        done
    }

    /// Has some guests leave in one commit.
    async fn dismiss_some(&self, room: &RoomId, guests: &[OwnedUserId]) -> Result<()> {
        let _turn = self.0.turn(room).await;
        for _ in 0..ATTEMPTS {
            match self.try_to_dismiss(room, guests).await {
                Err(Error::Retry) => {}
                done => return done,
            }
        }
        Err(Error::Retry)
    }

    async fn try_to_dismiss(&self, room: &RoomId, guests: &[OwnedUserId]) -> Result<()> {
        // Looked at again in the room's turn.
        let Some(view) = self.resident_view(room).await? else { return Ok(()) };
        if !view.shuts_guests_out().await? {
            return Ok(());
        }
        drop(view);
        let mut desk = Desk::open(&self.0, room).await?;
        let (mut done, before) = (Ok(()), desk.head.next_event);
        for guest in guests {
            match desk.dismiss(guest).await {
                Err(error @ (Error::Store(_) | Error::Retry)) => return Err(error),
                dismissed => done = done.and(dismissed),
            }
        }
        if desk.head.next_event != before {
            self.0.store.commit(desk.seal()).await?;
        }
        done
    }

    /// The guests of this server in a room that does not let guests in.
    async fn guests_shut_out(&self, room: &RoomId) -> Result<Vec<OwnedUserId>> {
        let mut guests = Vec::new();
        let Some(view) = self.resident_view(room).await? else { return Ok(guests) };
        if !view.shuts_guests_out().await? {
            return Ok(guests);
        }
        let mut page = view.reader.some_members(view.nid, Membership::Join, PAGE).await?;
        while let Some((last, _)) = page.last().cloned() {
            let users = page.into_iter().map(|(user, _)| user);
            let local: Vec<OwnedUserId> = users.filter(|user| user.server_name() == self.0.server).collect();
            guests.extend(self.0.accounts.guests_among(&view.reader, local).await?);
            page = view.reader.members_after(view.nid, Membership::Join, &last, PAGE).await?;
        }
        Ok(guests)
    }
}

impl View<'_> {
    /// Whether guests have to go. What was redacted lets nobody in.
    async fn shuts_guests_out(&self) -> Result<bool> {
        let access = self.current(StateEventType::RoomGuestAccess, "").await?;
        Ok(!access.is_some_and(|event| lets_in(&event.pdu)))
    }
}

impl Desk<'_> {
    /// Has a guest leave who is still there. The room's policy server is not asked: it has seen what shuts the guest out.
    async fn dismiss(&mut self, guest: &UserId) -> Result<()> {
        let member = self.current(StateEventType::RoomMember, guest.as_str()).await?;
        if member.is_none_or(|member| membership_of(&member) != Membership::Join) {
            return Ok(());
        }
        self.hand_over(guest).await?;
        let by = By { sender: guest, bypass: Bypass::None, door: Door::Local };
        let content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
        self.author_unasked(by, Draft::member(guest, content)).await.map(drop)
    }

    /// Notes that guests have to go where the current state comes to let them in no longer.
    pub(crate) async fn change_guest_access(
        &mut self,
        old: Option<EventNum>,
        new: Option<EventNum>,
    ) -> Result<()> {
        let Some(old) = old else { return Ok(()) };
        let nums: Vec<EventNum> = std::iter::once(old).chain(new).collect();
        let let_in: Vec<bool> = self.pdus(&nums).await?.iter().map(lets_in).collect();
        if let [true] | [true, false] = let_in[..] {
            self.shut_guests_out();
        }
        Ok(())
    }

    /// The same where the event that let them in was redacted.
    pub(crate) async fn forget_guest_access(&mut self, redacted: &Pdu, num: EventNum) -> Result<()> {
        let key = (StateEventType::RoomGuestAccess, String::new());
        let is_access = redacted.state().is_some_and(|(kind, of)| kind == key.0 && of.is_empty());
        if is_access
            && lets_in(redacted)
            && self.held(std::slice::from_ref(&key)).await?.num(&key) == Some(num)
        {
            self.shut_guests_out();
        }
        Ok(())
    }

    fn shut_guests_out(&mut self) {
        self.tx.put::<ShutRooms>(&self.nid, &self.inner.world.now());
        self.inner.shut.notify_one();
    }
}
