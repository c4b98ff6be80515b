//! `invite` (v2): another server's user invites one of ours.

use chappe_rules::{
    Pdu,
    auth::StateKey,
    build::countersign,
    policy::{Bypass, Door},
};
use chappe_store::{Membership, out_of_band::OutOfBand};
use ruma::{
    EventId, RoomId, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Error, Invitation, Result, Rooms,
    desk::{Desk, membership_of},
    receive::{allowed_by_acl, is_in, parse},
};

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
        if !here || misses {
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

    fn check_invite(&self, origin: &ServerName, event: &EventId, pdu: &Pdu) -> Result<ruma::OwnedUserId> {
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
