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
    Actor, Draft, Error, Result, Rooms, Standing,
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

    /// Looks again at a guest who has come in through another server: the room may have shut guests out meanwhile.
    pub(crate) async fn look_at_guest(&self, actor: &Actor, room: &RoomId) -> Result<()> {
        if actor.standing != Standing::Guest {
            return Ok(());
        }
        let desk = Desk::open(&self.0, room).await?;
        if desk.shuts_guests_out().await? {
            let mut tx = Tx::new();
            tx.put::<ShutRooms>(&desk.nid, &self.0.world.now());
            self.0.store.commit(tx).await?;
            self.0.shut.notify_one();
        }
        Ok(())
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
        let mut desk = Desk::open(&self.0, room).await?;
        // Looked at again in the room's turn.
        if !desk.is_here().await? || !desk.shuts_guests_out().await? {
            return Ok(());
        }
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
        if !Desk::open(&self.0, room).await?.shuts_guests_out().await? {
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

impl Desk<'_> {
    /// Whether guests have to go. What was redacted lets nobody in.
    async fn shuts_guests_out(&self) -> Result<bool> {
        let key = (StateEventType::RoomGuestAccess, String::new());
        let held = self.held(std::slice::from_ref(&key)).await?;
        let Some((num, _)) = held.0.get(&key).filter(|(_, access)| lets_in(access)) else { return Ok(true) };
        self.is_redacted(*num).await
    }

    async fn is_joined(&self, user: &UserId) -> Result<bool> {
        let member = self.current(StateEventType::RoomMember, user.as_str()).await?;
        Ok(member.is_some_and(|member| membership_of(&member) == Membership::Join))
    }

    /// Refuses a guest who is about to enter: the room was open a moment ago.
    pub(crate) async fn admit_guest(&self, guest: &UserId) -> Result<()> {
        if self.shuts_guests_out().await? && !self.is_joined(guest).await? {
            return Err(Error::NoGuests);
        }
        Ok(())
    }

    /// Has a guest leave who is still there. The room's policy server is not asked: it has seen what shuts the guest out.
    async fn dismiss(&mut self, guest: &UserId) -> Result<()> {
        if !self.is_joined(guest).await? {
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

#[cfg(test)]
mod tests {
    use chappe_accounts::{NewUser, UserKind};
    use chappe_kv::{Db, Memory};
    use ruma::{OwnedRoomId, RoomId, server_name};
    use serde_json::{Map, Value, json};

    use crate::{
        Actor, Error, Result, Rooms, Standing, Via,
        tests::net::{ALICE, Net, actor, room, state},
    };

    async fn set_access(a: &Rooms, id: &RoomId, what: &str) {
        let draft = state("m.room.guest_access", "", &json!({ "guest_access": what }));
        a.send(&actor(ALICE), id, draft, None).await.unwrap();
    }

    async fn open_room(a: &Rooms) -> OwnedRoomId {
        let id = room(a, ALICE, json!({ "preset": "public_chat" })).await;
        set_access(a, &id, "can_join").await;
        id
    }

    /// A guest with an account.
    async fn guest_of(rooms: &Rooms) -> Actor {
        let new = NewUser { localpart: Some("gus".to_owned()), kind: UserKind::Guest, ..NewUser::default() };
        rooms.0.accounts.create_user(new).await.unwrap();
        Actor { standing: Standing::Guest, ..actor(&format!("@gus:{}", rooms.server())) }
    }

    /// What follows once a guest was admitted.
    async fn enter(rooms: &Rooms, guest: &Actor, id: &RoomId, via: Via) -> Result<()> {
        let content = Map::from_iter([("membership".to_owned(), json!("join"))]);
        let at = rooms.standpoint(&guest.user, id).await?;
        rooms.enter(guest, id, via, content, &at).await
    }

    async fn membership_of(rooms: &Rooms, guest: &Actor, id: &RoomId) -> Value {
        let view = rooms.view(id).await.unwrap();
        let event = view.current("m.room.member".into(), guest.user.as_str()).await.unwrap();
        event.map_or(Value::Null, |event| event.pdu.content_as::<Value>().unwrap()["membership"].clone())
    }

    #[tokio::test]
    async fn who_was_admitted_a_moment_ago_does_not_enter_a_room_that_has_closed() {
        let a = Net::default().server_on("a.example", 1, Db::new(Memory::default()));
        let (id, guest) = (open_room(&a).await, guest_of(&a).await);
        a.admit_guest(&guest, &id, &[]).await.unwrap();
        set_access(&a, &id, "forbidden").await;
        a.dismiss_guests().await.unwrap();
        let entered = enter(&a, &guest, &id, Vec::new()).await;
        assert!(matches!(entered, Err(Error::NoGuests)), "{entered:?}");
        set_access(&a, &id, "can_join").await;
        enter(&a, &guest, &id, Vec::new()).await.unwrap();
        assert_eq!(membership_of(&a, &guest, &id).await, "join");
    }

    #[tokio::test]
    async fn who_comes_in_through_another_server_as_the_room_closes_leaves_again() {
        let net = Net::default();
        let server = |name: &str, seed: u8| net.server_on(name, seed, Db::new(Memory::default()));
        let (a, b) = (server("a.example", 1), server("b.example", 2));
        let (id, guest) = (open_room(&a).await, guest_of(&b).await);
        let via = vec![server_name!("a.example").to_owned()];
        b.admit_guest(&guest, &id, &via).await.unwrap();
        set_access(&a, &id, "forbidden").await;
        enter(&b, &guest, &id, via).await.unwrap();
        b.dismiss_guests().await.unwrap();
        net.deliver().await;
        for rooms in [&a, &b] {
            assert_eq!(membership_of(rooms, &guest, &id).await, "leave");
        }
    }
}
