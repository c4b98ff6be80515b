//! The form in which clients get events.

use std::collections::BTreeMap;

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedTransactionId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Serialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::Pdu;

/// Which fields a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Everything, the room named.
    Full,
    /// As in a sync answer, where the room is known.
    Sync,
    /// As servers see it (`event_format: federation`).
    Federation,
}

/// What this server adds for the one who asks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Unsigned {
    /// Milliseconds since the event was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// Only for the device that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<OwnedTransactionId>,
    /// Only for the sender: the id under which the event was delayed (MSC4140).
    #[serde(rename = "org.matrix.msc4140.delay_id", skip_serializing_if = "Option::is_none")]
    pub delay_id: Option<String>,
    /// The membership of the asking user at the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<MembershipState>,
    /// State events: the content of the event that it replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_content: Option<Box<RawValue>>,
    /// State events: the event that it replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces_state: Option<ruma::OwnedEventId>,
    /// State events: who sent the event that it replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_sender: Option<ruma::OwnedUserId>,
    /// Redacted events: the redaction, in client form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted_because: Option<Box<RawValue>>,
    /// Sticky events: for how many milliseconds more (MSC4354).
    #[serde(rename = "msc4354_sticky_duration_ttl_ms", skip_serializing_if = "Option::is_none")]
    pub sticky_ttl_ms: Option<u64>,
    /// Bundled aggregations.
    #[serde(rename = "m.relations", skip_serializing_if = "BTreeMap::is_empty")]
    pub relations: BTreeMap<String, Value>,
    /// Invites: the stripped state that came along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invite_room_state: Vec<Box<RawValue>>,
}

impl Unsigned {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.age.is_none()
            && self.transaction_id.is_none()
            && self.delay_id.is_none()
            && self.membership.is_none()
            && self.prev_content.is_none()
            && self.replaces_state.is_none()
            && self.prev_sender.is_none()
            && self.redacted_because.is_none()
            && self.sticky_ttl_ms.is_none()
            && self.relations.is_empty()
            && self.invite_room_state.is_empty()
    }
}

#[derive(Serialize)]
struct Sticky {
    duration_ms: u32,
}

#[derive(Serialize)]
struct ClientEvent<'a> {
    content: &'a RawValue,
    event_id: &'a EventId,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a RoomId>,
    sender: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    #[serde(rename = "msc4354_sticky", skip_serializing_if = "Option::is_none")]
    sticky: Option<Sticky>,
    #[serde(rename = "type")]
    kind: &'a TimelineEventType,
    #[serde(skip_serializing_if = "Unsigned::is_empty")]
    unsigned: &'a Unsigned,
}

/// Renders an event for a client.
///
/// A redaction names its target both beside and inside its content, whatever the room version says, as old and new
/// clients look in different places (room version 11, "Moving the redacts property").
pub fn render(pdu: &Pdu, form: Form, unsigned: &Unsigned) -> Box<RawValue> {
    if form == Form::Federation {
        return federation(pdu, unsigned);
    }
    let redacting = pdu.redacts().and_then(|target| {
        let mut content: BTreeMap<String, Value> = pdu.content_as()?;
        content.insert("redacts".to_owned(), target.as_str().into());
        to_raw_value(&content).ok()
    });
    let event = ClientEvent {
        content: redacting.as_deref().unwrap_or(pdu.content()),
        event_id: pdu.event_id(),
        origin_server_ts: pdu.origin_server_ts(),
        redacts: pdu.redacts(),
        room_id: (form == Form::Full).then_some(pdu.room_id()),
        sender: pdu.sender(),
        state_key: pdu.state_key(),
        sticky: pdu.sticky_ms().map(|duration_ms| Sticky { duration_ms }),
        kind: pdu.kind(),
        unsigned,
    };
    raw(&event)
}

fn federation(pdu: &Pdu, unsigned: &Unsigned) -> Box<RawValue> {
    let mut event: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(pdu.json()).expect("a stored event is a JSON object");
    event.insert("event_id".to_owned(), raw(pdu.event_id()));
    event.insert("room_id".to_owned(), raw(pdu.room_id()));
    if !unsigned.is_empty() {
        event.insert("unsigned".to_owned(), raw(unsigned));
    }
    raw(&event)
}

fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("events have string keys and no failing serializer")
}

/// The stripped form of a state event, for invites and knocks: type, state key, content and sender. `None` for an event
/// that is no state event. The create event says its time as well.
///
/// Specification: client-server API, "Stripped state".
pub fn stripped(pdu: &Pdu) -> Option<Box<RawValue>> {
    #[derive(Serialize)]
    struct Stripped<'a> {
        content: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        origin_server_ts: Option<MilliSecondsSinceUnixEpoch>,
        sender: &'a UserId,
        state_key: &'a str,
        #[serde(rename = "type")]
        kind: &'a TimelineEventType,
    }
    let stripped = Stripped {
        content: pdu.content(),
        origin_server_ts: (*pdu.kind() == TimelineEventType::RoomCreate).then(|| pdu.origin_server_ts()),
        sender: pdu.sender(),
        state_key: pdu.state_key()?,
        kind: pdu.kind(),
    };
    Some(raw(&stripped))
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules;
    use serde_json::Value;

    use super::{Form, Unsigned, render, stripped};
    use crate::laws::{Room, sample};

    fn value(raw: &serde_json::value::RawValue) -> Value {
        serde_json::from_str(raw.get()).unwrap()
    }

    #[test]
    fn clients_get_what_they_may_know() {
        let (_, _, pdu) = sample(&RoomVersionRules::V12);
        let full = value(&render(&pdu, Form::Full, &Unsigned { age: Some(3), ..Unsigned::default() }));
        assert_eq!((&full["room_id"], &full["unsigned"]["age"]), (&pdu.room_id().as_str().into(), &3.into()));
        let sync = value(&render(&pdu, Form::Sync, &Unsigned::default()));
        for absent in ["room_id", "unsigned", "hashes", "signatures", "depth", "auth_events", "prev_events"] {
            assert!(sync.get(absent).is_none(), "{absent}");
        }
        let federation = value(&render(&pdu, Form::Federation, &Unsigned::default()));
        assert_eq!(federation["event_id"], pdu.event_id().as_str());
        assert!(federation.get("hashes").is_some());
        assert!(stripped(&pdu).is_none());
    }

    #[test]
    fn redaction_names_its_target_twice() {
        for rules in [&RoomVersionRules::V6, &RoomVersionRules::V11] {
            let mut room = Room::new(rules, "@a:a.example");
            let target = room.say("@a:a.example", "x");
            let redaction = room.redact("@a:a.example", target.event_id());
            let seen = value(&render(&redaction, Form::Sync, &Unsigned::default()));
            assert_eq!(seen["redacts"], target.event_id().as_str());
            assert_eq!(seen["content"]["redacts"], target.event_id().as_str());
        }
    }
}
