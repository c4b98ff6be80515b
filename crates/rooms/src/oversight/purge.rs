//! Removing every trace of a room.
//!
//! The room's number is never given out again and keeps an empty head: whoever still holds the number finds a room in
//! which nobody is and nothing was said.

use std::collections::BTreeSet;

use chappe_rules::Pdu;
use chappe_store::{
    Direction, EventNum, Index, Keeping, LogEntry, Membership, OutboxItem, Removed, RoomHead, RoomNid,
    StateRef, Tx,
    accounts::Users,
    accounts_data::AccountData,
    events::EventPdus,
    media::MediaUses,
    members::{Forgotten, RemoteRooms, UserRooms},
    notices::NoticeRooms,
    out_of_band::OutOfBand,
    outbox::{Outbox, OutboxKey, behind},
    relations::WaitingRedactions,
    rooms::DoomedRooms,
};
use ruma::{OwnedServerName, OwnedUserId, RoomId, ServerName, UserId, events::TimelineEventType};

use crate::{Error, Result, Rooms, desk::rules_of, retention::named_media, turn::ATTEMPTS};

/// Users whose lists are changed in one commit.
const USERS: usize = 500;
/// Events removed in one commit.
const EVENTS: usize = 200;
/// Rows of a queue looked at for one commit: each of them may become an event.
const ROWS: usize = 50;

impl Rooms {
    /// The number of a room, if this server knows it: what [`Rooms::purge`] is asked with, so that a purge that was
    /// broken off can be gone on with.
    pub async fn number(&self, room: &RoomId) -> Result<Option<RoomNid>> {
        Ok(self.0.store.read().room_nid(room).await?)
    }

    /// Removes everything that is kept of a room: nobody of this server may be in it. What is left to be told to
    /// devices that were away, that their user is out, stays until they have heard it, and what waits for other servers
    /// until it is sent. [`Error::BadState`] while somebody is in the room and `force` is not given.
    pub async fn purge(&self, room: &RoomId, nid: RoomNid, force: Force) -> Result<()> {
        if self.number(room).await? == Some(nid) {
            self.uproot(room, nid, force).await?;
        }
        self.sweep_room(room, nid).await
    }

    /// Takes the room out of its users' lists. Those who know of it are told that they are out. Gives those who had
    /// forgotten it, of which the room keeps note until it is uprooted: this may be done again.
    async fn take_from_lists(&self, room: &RoomId, nid: RoomNid) -> Result<Vec<OwnedUserId>> {
        let view = self.view(room).await?;
        let (mut locals, mut forgetters) = (Vec::new(), Vec::new());
        for is in Membership::ALL {
            let members = view.reader.members(nid, is).await?.into_iter();
            let ours = members.filter(|(user, _)| user.server_name() == self.0.server);
            locals.extend(ours.map(|(user, num)| (user, num, is)));
        }
        for some in locals.chunks(USERS) {
            let nums: Vec<_> = some.iter().map(|(_, num, _)| *num).collect();
            let events = view.load(&nums).await?;
            let mut tx = Tx::new();
            for ((user, _, is), event) in some.iter().zip(events) {
                let key = (user.clone(), nid);
                tx.delete::<UserRooms>(&key);
                tx.log(LogEntry::Member { room: nid.0, user: user.clone() });
                if view.reader.get::<NoticeRooms>(user).await?.is_some_and(|told_in| told_in == room.as_str())
                {
                    tx.delete::<NoticeRooms>(user);
                }
                if *is == Membership::Join && self.0.accounts.appservices().cover_user(user) {
                    tx.log(LogEntry::ServiceUser { user: user.clone(), room: nid.0, joined: false });
                }
                if view.reader.forgotten(user, nid).await?.is_some() {
                    forgetters.push(user.clone());
                } else {
                    let last = (event.pdu.event_id(), event.pdu.to_raw());
                    let farewell = OutOfBand::farewell(nid, &view.head.version, last);
                    tx.put_out_of_band(user, room, &farewell);
                }
            }
            self.0.store.commit(tx).await?;
        }
        for (user, ..) in &locals {
            self.drop_own(user, room, nid).await?;
        }
        Ok(forgetters)
    }

    /// Removes what a user of this server keeps of the room for themselves.
    async fn drop_own(&self, user: &UserId, room: &RoomId, nid: RoomNid) -> Result<()> {
        loop {
            let (reader, mut tx) = (self.0.store.read(), Tx::new());
            tx.drop_own(&reader, user, (nid, room), EVENTS).await?;
            drop(reader);
            if tx.is_empty() {
                return Ok(());
            }
            match self.0.store.commit(tx).await {
                Ok(_) | Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The same of all users: also who was never in the room may have something of it.
    async fn drop_all_own(&self, room: &RoomId, nid: RoomNid) -> Result<()> {
        let mut page = self.0.store.read().scan::<Users>(&(), Direction::Forward, USERS).await?;
        while let Some((last, _)) = page.last().cloned() {
            for (user, _) in page {
                let own = (user.clone(), room.to_string());
                if !self.0.store.read().scan::<AccountData>(&own, Direction::Forward, 1).await?.is_empty() {
                    self.drop_own(&user, room, nid).await?;
                }
            }
            let rest = self.0.store.read().scan_from::<Users>(&(), &last, USERS + 1).await?;
            page = rest.into_iter().skip(1).collect();
        }
        Ok(())
    }

    /// What of the room waits for other servers no longer needs the room: who does not hear that its users have left keeps
    /// them for good, and who misses what was before that does not take it.
    async fn keep_queued(&self, nid: RoomNid) -> Result<()> {
        // Of a room whose members follow only these are known, and those that counted as in it until nobody told who is.
        let joined = self.0.store.read().room_servers(nid).await?;
        let mut servers: BTreeSet<OwnedServerName> = joined.into_iter().map(|(server, _)| server).collect();
        servers.extend(self.0.store.read().doubted_servers(nid).await?);
        for is in Membership::ALL.into_iter().filter(|is| *is != Membership::Join) {
            let members = self.0.store.read().members(nid, is).await?;
            servers.extend(members.into_iter().map(|(user, _)| user.server_name().to_owned()));
        }
        for server in &servers {
            self.keep_queued_for(server, nid).await?;
        }
        Ok(())
    }

    async fn keep_queued_for(&self, server: &OwnedServerName, nid: RoomNid) -> Result<()> {
        let mut from: OutboxKey = (server.clone(), 0, Index(0));
        loop {
            let rows = self.0.store.read().scan_from::<Outbox>(server, &from, ROWS).await?;
            let Some(((_, position, index), _)) = rows.last() else { return Ok(()) };
            let next = behind(server, (*position, *index));
            let mut tx = Tx::new();
            for (key, item) in rows {
                let OutboxItem::Pdu { room, event } = item else { continue };
                if room != nid.0 {
                    continue;
                }
                match self.outgoing(nid, EventNum(event)).await {
                    Ok(event) => {
                        let event = OutboxItem::Event(event.get().to_owned());
                        tx.expect::<Outbox>(&key, Some(&item)).put::<Outbox>(&key, &event);
                    }
                    // It was purged before, or is another server's and redacted.
                    Err(Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let kept = if tx.is_empty() { Ok(()) } else { self.0.store.commit(tx).await.map(drop) };
            match kept {
                Ok(()) => from = next,
                // Some of it was sent meanwhile.
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// From here on nobody finds the room any more.
    async fn uproot(&self, room: &RoomId, nid: RoomNid, force: Force) -> Result<()> {
        // Whoever enters or is invited does so in a turn.
        let _turn = self.0.turn(room).await;
        if force == Force::No && !self.locals_in(room).await?.is_empty() {
            return Err(Error::BadState("users of this server are still in the room".to_owned()));
        }
        let forgetters = self.take_from_lists(room, nid).await?;
        for _ in 0..ATTEMPTS {
            let old = self.0.store.read().room_head(nid).await?;
            // Whatever else is to be sent changes the head, or comes in the place of a row that is there until then.
            self.keep_queued(nid).await?;
            let (reader, mut tx) = (self.0.store.read(), Tx::new());
            for alias in reader.aliases_of(nid).await? {
                if let Some(target) = reader.alias(&alias).await? {
                    tx.delete_alias(&alias, &target);
                }
            }
            let bare = RoomHead {
                state: StateRef::EMPTY,
                extremities: Vec::new(),
                depth: 0,
                joined: 0,
                invited: 0,
                resident: false,
                keeping: Keeping::default(),
                ..old.clone()
            };
            for user in &forgetters {
                tx.delete::<Forgotten>(&(user.clone(), nid));
            }
            tx.unlist_from_services(&reader, nid).await?;
            tx.unpublish_room(nid).uproot_room(nid, room).replace_head(nid, &old, &bare);
            tx.log(LogEntry::Members { room: nid.0 });
            drop(reader);
            match self.0.store.commit(tx).await {
                Ok(at) => {
                    self.0.store.forget_room(at, room);
                    return Ok(());
                }
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Retry)
    }

    /// Removes what lies under the number of a room that was uprooted.
    async fn sweep_room(&self, room: &RoomId, nid: RoomNid) -> Result<()> {
        if !self.0.store.read().room_head(nid).await?.extremities.is_empty() {
            return Err(Error::BadState("this room is in use".to_owned()));
        }
        while !self.drop_events(nid).await?.ids.is_empty() {}
        let doomed = self.0.store.read().get::<DoomedRooms>(&room.to_owned()).await? == Some(nid);
        if doomed {
            self.drop_all_own(room, nid).await?;
        }
        loop {
            let mut tx = Tx::new();
            if tx.drop_sticky(&self.0.store.read(), nid, EVENTS).await? == 0 {
                break;
            }
            self.0.store.commit(tx).await?;
        }
        let mut tx = Tx::new();
        tx.sweep_room(nid);
        if doomed {
            tx.delete::<DoomedRooms>(&room.to_owned());
        }
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// Removes some events, and what is found by what they say.
    async fn drop_events(&self, nid: RoomNid) -> Result<Removed> {
        let (reader, mut tx) = (self.0.store.read(), Tx::new());
        let rules = rules_of(&reader.room_head(nid).await?.version)?;
        let rows = reader.scan::<EventPdus>(&nid, Direction::Forward, EVENTS).await?;
        let mut strangers = BTreeSet::new();
        for ((_, num), stored) in rows {
            if let Ok(pdu) = Pdu::restore(rules, stored.event_id.clone(), &stored.json) {
                take_from_indexes(&mut tx, nid, num, &pdu);
                strangers.extend(member_of_other(&pdu, &self.0.server));
            }
        }
        for user in strangers {
            tx.delete::<RemoteRooms>(&(user.clone(), nid)).log(LogEntry::Member { room: nid.0, user });
        }
        let removed = tx.drop_events(&reader, nid, EVENTS).await?;
        drop(reader);
        if !removed.ids.is_empty() {
            let at = self.0.store.commit(tx).await?;
            self.0.store.forget(at, nid, &removed);
        }
        Ok(removed)
    }
}

/// Removes what names an event that is going by something else than its number and its place.
pub(super) fn take_from_indexes(tx: &mut Tx, nid: RoomNid, num: EventNum, pdu: &Pdu) {
    for (server, id) in named_media(pdu.content()) {
        tx.delete::<MediaUses>(&(server, id, nid, num));
    }
    if let Some(target) = pdu.redacts() {
        tx.delete::<WaitingRedactions>(&(target.into(), nid, num));
    }
}

/// The user of another server whose membership an event says.
fn member_of_other(pdu: &Pdu, here: &ServerName) -> Option<OwnedUserId> {
    let user = pdu.state_key().filter(|_| *pdu.kind() == TimelineEventType::RoomMember)?;
    UserId::parse(user).ok().filter(|user| user.server_name() != here)
}

/// Whether a room is purged with users of this server in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// No.
    No,
    /// They find themselves outside.
    Yes,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Force;
    use crate::testing::{Town, actor};

    #[tokio::test]
    async fn who_has_forgotten_a_room_is_not_reminded_by_a_purge_that_was_broken_off() {
        let (town, alice, bob) = (Town::new(), actor("alice"), actor("bob"));
        let room = town.room(&alice, json!({ "preset": "public_chat" })).await;
        town.join(&bob, &room).await;
        town.rooms.leave(&bob, &room, None).await.unwrap();
        town.rooms.forget(&bob.user, &room).await.unwrap();
        let nid = town.rooms.number(&room).await.unwrap().unwrap();
        for _ in 0..2 {
            assert_eq!(
                town.rooms.take_from_lists(&room, nid).await.unwrap(),
                std::slice::from_ref(&bob.user)
            );
        }
        town.rooms.purge(&room, nid, Force::Yes).await.unwrap();
        let reader = town.store.read();
        assert!(reader.out_of_band(&bob.user, &room).await.unwrap().is_none());
        assert!(reader.out_of_band(&alice.user, &room).await.unwrap().is_some());
        assert_eq!(reader.forgotten(&bob.user, nid).await.unwrap(), None);
    }
}
