//! `invite` (v2): another server's user invites one of ours.

use std::{cmp::Reverse, collections::BTreeMap};

use chappe_rules::{
    Pdu,
    auth::StateKey,
    build::countersign,
    policy::{Bypass, Door},
};
use chappe_store::{
    At, LogEntry, Membership, Tx,
    out_of_band::{Listed, OutOfBand},
};
use ruma::{
    EventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Error, Invitation, Result, Rooms,
    desk::{Desk, membership_of},
    receive::{allowed_by_acl, is_in, parse},
    turn::ATTEMPTS,
};

/// Invites of other servers that wait for the answer of one user, at most: a client that begins is told of all. Those that
/// come at the same time may be a few more.
const WAITING: usize = 500;
/// The same from one server.
const WAITING_OF_ONE: usize = 250;
/// Those that give way to one more, at most: where a few more wait than may, there are fewer each time.
const GIVING_WAY: usize = 2;

/// What waits for an answer of a user.
type Waiting = (OwnedRoomId, At<Listed>);

impl Rooms {
    /// `invite` (v2): gives the invite with this server's signature added. It is kept for the user where this server is not
    /// in the room, or may be out of it without having heard; otherwise it comes with the room's events.
    pub async fn accept_invite(
        &self,
        origin: &ServerName,
        room: &RoomId,
        event: &EventId,
        invitation: Invitation,
    ) -> Result<Box<RawValue>> {
        let rules = chappe_rules::version::rules(&invitation.room_version)
            .ok_or_else(|| Error::UnsupportedRoomVersion(invitation.room_version.to_string()))?;
        let pdu = parse(rules, room, &invitation.event)?;
        let invited = self.check_invite(origin, event, &pdu)?;
        self.check_block(room).await?;
        // Nothing is kept for names that nobody has, not even an application service.
        self.ask_for(&invited).await?;
        let account = self.0.accounts.user(&invited).await.map_err(|_| Error::Retry)?;
        if account.is_none_or(|account| account.deactivated.is_some()) {
            return Err(Error::Forbidden("there is no such user on this server".to_owned()));
        }
        self.check_welcome(pdu.sender(), &invited).await?;
        let proven =
            self.0.check_one(rules, pdu).await.map_err(|error| Error::InvalidParam(error.to_string()))?;
        let pdu = proven.pdu();
        let misses = self.misses_before(origin, (room, pdu), &invited).await?;
        let here = is_in(&self.0, room).await?;
        let is_noted = !here || misses;
        let room_state = self.0.told_with_invite(rules, room, &invitation.room_state).await?;
        if here {
            let desk = Desk::open(&self.0, room).await?;
            allowed_by_acl(&desk, origin).await?;
            if self.0.seems_joined(room, &invited).await? && self.0.has_server(room, origin).await? {
                // Kept for somebody who is in it, the room would be shown twice. Strangers are not told who is in it.
                return Err(Error::Forbidden("this user is in the room".to_owned()));
            }
            desk.ask_access_of(pdu, desk.state.current(), (Door::Offer, Bypass::None)).await?;
        } else {
            let told: Vec<(StateKey, Pdu)> =
                room_state.iter().filter_map(|raw| told_event(rules, room, raw)).collect();
            self.0.ask_access_as_told(pdu, &told).await?;
            self.0.check_insiders(&invitation.room_state, &[])?;
        }
        let signed = countersign(rules, pdu, self.server(), &self.0.key)
            .map_err(|error| Error::BadJson(error.to_string()))?;
        if is_noted {
            // Last: for an invite that is refused none gives way.
            self.make_place(origin, room, &invited).await?;
            let outside = OutOfBand {
                membership: "invite".to_owned(),
                event: signed.to_raw(),
                event_id: signed.event_id().to_string(),
                state: room_state,
                version: Some(invitation.room_version.to_string()),
                via: vec![origin.to_owned()],
                number: None,
            };
            self.note_outside(&invited, room, outside).await?;
        }
        Ok(signed.to_raw())
    }

    /// Makes place for one more invite where too many wait: those that are kept from the user give way first, then the oldest
    /// one of the server that has the most, to one of a server that has fewer. Else it is refused. One that takes the place of
    /// an invite or knock adds none.
    async fn make_place(&self, origin: &ServerName, room: &RoomId, invited: &UserId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            match self.try_to_make_place(origin, room, invited).await {
                // What was to give way is over, or another one by now.
                Err(Error::Retry) => {}
                done => return done,
            }
        }
        Err(Error::Retry)
    }

    async fn try_to_make_place(&self, origin: &ServerName, room: &RoomId, invited: &UserId) -> Result<()> {
        let reader = self.0.store.read();
        let mut waiting = reader.out_of_band_list(invited).await?;
        if waiting.iter().any(|(known, at)| known == room && !at.value.is_over()) {
            return Ok(());
        }
        waiting.retain(|(_, at)| at.value.membership == Membership::Invite);
        if giving_way(&waiting, origin).is_some_and(|giving_way| giving_way.is_empty()) {
            return Ok(());
        }
        let accounts = &self.0.accounts;
        let ignored = accounts.ignored_users(&reader, invited).await.unwrap_or_default();
        let filter = accounts.invite_filter(&reader, invited).await.unwrap_or_default();
        drop(reader);
        let is_shown = |by: &OwnedUserId| !ignored.contains(by) && !filter.hides(by);
        let (shown, hidden): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, at)| at.value.by.as_ref().is_none_or(is_shown));
        // No 429: it would be sent again and again, and the user may not answer for days.
        let too_many = || Error::Forbidden("too many invites wait for an answer of this user".to_owned());
        let giving_way = giving_way(&shown, origin).ok_or_else(too_many)?;
        self.drop_waiting(invited, &hidden).await?;
        for waiting in giving_way {
            self.end_waiting(invited, waiting).await?;
        }
        Ok(())
    }

    /// Removes invites without a word to the user.
    async fn drop_waiting(&self, user: &UserId, waiting: &[Waiting]) -> Result<()> {
        let mut tx = Tx::new();
        for (room, at) in waiting {
            tx.delete_listed(user, room, at);
            tx.log(LogEntry::OutOfBandMembership { user: user.to_owned(), room: room.clone() });
        }
        if !tx.is_empty() {
            self.0.store.commit(tx).await?;
        }
        Ok(())
    }

    /// Ends an invite as if it was withdrawn. [`Error::Retry`] if it is no longer as it is listed.
    async fn end_waiting(&self, user: &UserId, waiting: &Waiting) -> Result<()> {
        let (room, listed) = waiting;
        let read = self.0.store.read().out_of_band(user, room).await?;
        let read = read.filter(|read| read.position == listed.position).ok_or(Error::Retry)?;
        match event_of(&read.value.0) {
            // That the user is out is all there is to tell: nobody has said so.
            Some(invite) => self.0.end_outside(user, room, &read, &invite).await,
            None => self.drop_waiting(user, std::slice::from_ref(waiting)).await,
        }
    }

    fn check_invite(&self, origin: &ServerName, event: &EventId, pdu: &Pdu) -> Result<OwnedUserId> {
        let bad = |what: &str| Error::InvalidParam(what.to_owned());
        if pdu.event_id() != event {
            return Err(bad("the event has another id than the path says"));
        }
        if *pdu.kind() != TimelineEventType::RoomMember || membership_of(pdu) != Membership::Invite {
            return Err(bad("an invite is needed"));
        }
        if pdu.sender().server_name() != origin {
            return Err(bad("the sender is not of your server"));
        }
        let invited = pdu.state_key().and_then(|key| UserId::parse(key).ok());
        let invited = invited.ok_or_else(|| bad("an invite needs a user"))?;
        if invited.server_name() != self.server() {
            return Err(bad("the invited user is not of this server"));
        }
        Ok(invited)
    }
}

/// Those that give way so that one more invite of a server may wait, none while there is place; `None` if it may not.
fn giving_way<'w>(waiting: &'w [Waiting], origin: &ServerName) -> Option<Vec<&'w Waiting>> {
    let mut by_server: BTreeMap<Option<&ServerName>, Vec<&Waiting>> = BTreeMap::new();
    for one in waiting {
        by_server.entry(one.1.value.by.as_ref().map(|by| by.server_name())).or_default().push(one);
    }
    let theirs = by_server.remove(&Some(origin)).map_or(0, |theirs| theirs.len());
    if theirs >= WAITING_OF_ONE {
        return None;
    }
    for of_one in by_server.values_mut() {
        of_one.sort_by_key(|(_, at)| Reverse(at.position));
    }
    let oldest = |of_one: &[&Waiting]| of_one.last().map(|(_, at)| at.position);
    let mut found = Vec::new();
    while waiting.len() - found.len() >= WAITING && found.len() < GIVING_WAY {
        let most = by_server.values_mut().max_by_key(|of_one| (of_one.len(), Reverse(oldest(of_one))));
        let Some(one) = most.filter(|most| most.len() > theirs).and_then(Vec::pop) else { break };
        found.push(one);
    }
    (waiting.len() < WAITING || !found.is_empty()).then_some(found)
}

/// The event of a membership as it is noted.
fn event_of(what: &OutOfBand) -> Option<Pdu> {
    let version = RoomVersionId::try_from(what.version.as_deref()?).ok()?;
    let id = EventId::parse(&what.event_id).ok()?;
    Pdu::restore(chappe_rules::version::rules(&version)?, id, what.event.get()).ok()
}

/// Stripped state in the form the access rules read; it is only as true as the inviting server is.
fn told_event(rules: &RoomVersionRules, room: &RoomId, raw: &RawValue) -> Option<(StateKey, Pdu)> {
    let mut event: Value = serde_json::from_str(raw.get()).ok()?;
    let kind = StateEventType::from(event.get("type")?.as_str()?);
    let key = event.get("state_key")?.as_str()?.to_owned();
    let fields = event.as_object_mut()?;
    fields.insert("room_id".to_owned(), json!(room));
    for (field, empty) in [("prev_events", json!([])), ("auth_events", json!([])), ("depth", json!(0))] {
        fields.insert(field.to_owned(), empty);
    }
    fields.insert("origin_server_ts".to_owned(), json!(0));
    let id = EventId::parse("$told").ok()?;
    Some(((kind, key), Pdu::restore(rules, id, &event.to_string()).ok()?))
}
