//! Events as a user gets them: redacted where they were redacted, with what this server adds for this user.

use std::sync::Arc;

use chappe_rules::{
    Pdu,
    client::{Form, Unsigned, render},
    power::Power,
    redact, version,
    visibility::{AtEvent, membership, user_may_see, visibility},
};
use chappe_store::{
    EventMeta, EventNum, Reader, RoomNid, StateRef, StoredPdu,
    state::StateKey,
};
use ruma::{DeviceId, RoomVersionId, UserId, events::room::member::MembershipState, room_version_rules::RoomVersionRules};
use serde_json::value::RawValue;

use crate::Error;

/// A room that events are read from.
#[derive(Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) nid: RoomNid,
    pub(crate) version: &'a RoomVersionId,
}

impl Room<'_> {
    pub(crate) fn rules(&self) -> Result<&'static RoomVersionRules, Error> {
        version::rules(self.version).ok_or_else(|| Error::Damaged(format!("room version {}", self.version)))
    }
}

/// An event with what the server thinks of it.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) num: EventNum,
    pub(crate) meta: EventMeta,
    pub(crate) stored: Arc<StoredPdu>,
    pub(crate) pdu: Arc<Pdu>,
}

/// Parses a stored event, once for everybody.
pub(crate) fn parse(room: &Room<'_>, stored: &StoredPdu) -> Result<Arc<Pdu>, Error> {
    let rules = room.rules()?;
    stored.form(|stored| Pdu::restore(rules, stored.event_id.clone(), &stored.json)).map_err(Error::from)
}

/// Several events, in their order: one round trip.
pub(crate) async fn load(reader: &Reader<'_>, room: &Room<'_>, nums: &[EventNum]) -> Result<Vec<Found>, Error> {
    if nums.is_empty() {
        return Ok(Vec::new());
    }
    let rows = reader.events(room.nid, nums).await?;
    let found = |(num, (meta, stored)): (&EventNum, (EventMeta, Arc<StoredPdu>))| {
        let pdu = parse(room, &stored)?;
        Ok(Found { num: *num, meta, stored, pdu })
    };
    nums.iter().zip(rows).map(found).collect()
}

/// One event.
pub(crate) async fn load_one(reader: &Reader<'_>, room: &Room<'_>, num: EventNum) -> Result<Arc<Pdu>, Error> {
    parse(room, &*reader.pdu(room.nid, num).await?)
}

/// An event of a state.
pub(crate) async fn state_at(
    reader: &Reader<'_>,
    room: &Room<'_>,
    at: StateRef,
    kind: &str,
    key: &str,
) -> Result<Option<Arc<Pdu>>, Error> {
    match reader.state_event_at(room.nid, at, &StateKey::new(kind, key)).await? {
        Some(num) => Ok(Some(load_one(reader, room, num).await?)),
        None => Ok(None),
    }
}

/// An event of the current state.
pub(crate) async fn state_now(
    reader: &Reader<'_>,
    room: &Room<'_>,
    kind: &str,
    key: &str,
) -> Result<Option<Arc<Pdu>>, Error> {
    let nums = reader.state_now(room.nid, &[StateKey::new(kind, key)]).await?;
    match nums.into_iter().next().flatten() {
        Some(num) => Ok(Some(load_one(reader, room, num).await?)),
        None => Ok(None),
    }
}

/// The power levels of the current state.
pub(crate) async fn power_now(reader: &Reader<'_>, room: &Room<'_>) -> Result<Option<Power>, Error> {
    let Some(create) = state_now(reader, room, "m.room.create", "").await? else { return Ok(None) };
    let levels = state_now(reader, room, "m.room.power_levels", "").await?;
    Ok(Some(Power::new(room.rules()?, &create, levels.as_deref())))
}

/// A user's membership in a state.
pub(crate) async fn membership_at(
    reader: &Reader<'_>,
    room: &Room<'_>,
    at: StateRef,
    user: &UserId,
) -> Result<MembershipState, Error> {
    Ok(membership(state_at(reader, room, at, "m.room.member", user.as_str()).await?.as_deref()))
}

/// Whether a user may see an event. `joined_since`: they are joined now or were after it.
pub(crate) async fn is_visible(
    reader: &Reader<'_>,
    room: &Room<'_>,
    user: &UserId,
    event: &Found,
    joined_since: bool,
) -> Result<bool, Error> {
    let before = event.meta.before;
    let said = state_at(reader, room, before, "m.room.history_visibility", "").await?;
    let membership = membership_at(reader, room, before, user).await?;
    let at = AtEvent { visibility: visibility(said.as_deref()), membership, joined_since };
    Ok(user_may_see(user, &event.pdu, &at))
}

/// Who gets an event rendered.
pub(crate) struct Asker<'a> {
    pub(crate) user: &'a UserId,
    pub(crate) device: Option<&'a DeviceId>,
    pub(crate) form: Form,
    /// Now, in milliseconds since 1970.
    pub(crate) now: u64,
}

/// Renders timeline events.
pub(crate) async fn timeline(
    reader: &Reader<'_>,
    room: &Room<'_>,
    asker: &Asker<'_>,
    events: &[Found],
) -> Result<Vec<Box<RawValue>>, Error> {
    let nums: Vec<EventNum> = events.iter().map(|event| event.num).collect();
    let own = events.iter().any(|event| event.pdu.sender() == asker.user);
    let transactions = match asker.device.filter(|_| own) {
        Some(device) => reader.event_transactions(room.nid, &nums, device).await?,
        None => vec![None; nums.len()],
    };
    let mut rendered = Vec::with_capacity(events.len());
    for (event, transaction) in events.iter().zip(transactions) {
        let own = event.pdu.sender() == asker.user;
        let mut unsigned = Unsigned {
            transaction_id: transaction.filter(|_| own).map(Into::into),
            membership: Some(membership_of(reader, room, asker.user, event).await?),
            ..Unsigned::default()
        };
        rendered.push(event_for(reader, room, asker, event, &mut unsigned).await?);
    }
    Ok(rendered)
}

/// The user's membership at an event; of the user's own membership event, the one it makes.
async fn membership_of(
    reader: &Reader<'_>,
    room: &Room<'_>,
    user: &UserId,
    event: &Found,
) -> Result<MembershipState, Error> {
    if event.pdu.kind().to_string() == "m.room.member" && event.pdu.state_key() == Some(user.as_str()) {
        return Ok(membership(Some(&event.pdu)));
    }
    membership_at(reader, room, event.meta.before, user).await
}

/// Renders state events.
pub(crate) async fn state(
    reader: &Reader<'_>,
    room: &Room<'_>,
    asker: &Asker<'_>,
    nums: &[EventNum],
) -> Result<Vec<Box<RawValue>>, Error> {
    let mut rendered = Vec::with_capacity(nums.len());
    for event in load(reader, room, nums).await? {
        rendered.push(event_for(reader, room, asker, &event, &mut Unsigned::default()).await?);
    }
    Ok(rendered)
}

async fn event_for(
    reader: &Reader<'_>,
    room: &Room<'_>,
    asker: &Asker<'_>,
    event: &Found,
    unsigned: &mut Unsigned,
) -> Result<Box<RawValue>, Error> {
    let sent = u64::from(event.pdu.origin_server_ts().0);
    unsigned.age = Some(asker.now.saturating_sub(sent));
    add_replaced(reader, room, event, unsigned).await?;
    if event.meta.redacted_by == EventNum::NONE {
        return Ok(render(&event.pdu, asker.form, unsigned));
    }
    let because = load_one(reader, room, event.meta.redacted_by).await?;
    unsigned.redacted_because = Some(render(&because, asker.form, &Unsigned::default()));
    let redacted = redact::event(room.rules()?, &event.pdu)?;
    Ok(render(&redacted, asker.form, unsigned))
}

/// State events tell what they replaced.
async fn add_replaced(
    reader: &Reader<'_>,
    room: &Room<'_>,
    event: &Found,
    unsigned: &mut Unsigned,
) -> Result<(), Error> {
    let Some(key) = event.pdu.state_key() else { return Ok(()) };
    let kind = event.pdu.kind().to_string();
    let old = reader.state_event_at(room.nid, event.meta.before, &StateKey::new(kind, key)).await?;
    let Some(old) = old.filter(|old| *old != event.num) else { return Ok(()) };
    let old = load(reader, room, &[old]).await?;
    if let Some(old) = old.first() {
        let content = if old.meta.redacted_by == EventNum::NONE {
            old.pdu.content().to_owned()
        } else {
            redact::content(room.rules()?, old.pdu.kind(), old.pdu.content())
        };
        unsigned.prev_content = Some(content);
        unsigned.prev_sender = Some(old.pdu.sender().to_owned());
        unsigned.replaces_state = Some(old.pdu.event_id().to_owned());
    }
    Ok(())
}
