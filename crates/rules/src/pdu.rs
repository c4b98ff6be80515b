//! An event as servers exchange it, parsed and within the limits of its room version.

mod format;
mod integer;
mod judged;
mod kind;
mod lenient;
mod stored;

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, RoomId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomVersionRules},
};
use serde::Deserialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use self::format::{MAX_BYTES, are_texts, check_proofs, counted_in_characters, with_owned_key};
pub use self::integer::level;
pub use self::judged::Judged;
pub(crate) use self::judged::no_join_rules;
pub use self::kind::kind_of;
use self::kind::read_kind;
pub(crate) use self::kind::{kind_to_judge, text_judged, text_to_judge};
pub(crate) use self::lenient::{NOBODY, has_null_level, stand_in};
use self::lenient::{content_to_judge, state_key_to_judge};
use crate::{Error, json, opened::Opened};

/// The longest identifier, type or state key, in bytes.
pub const MAX_ID_BYTES: usize = 255;
/// The field that makes an event sticky (MSC4354).
pub(crate) const STICKY: &str = "msc4354_sticky";
/// The longest time that an event is sticky, in milliseconds.
pub const MAX_STICKY_MS: u32 = 3_600_000;
/// Raw input longer than this is not even parsed, in bytes. Four times the limit of the canonical form.
const MAX_RAW_BYTES: usize = 4 * MAX_BYTES;

/// A parsed event. Cheap to clone; never changes.
#[derive(Clone, Debug)]
pub struct Pdu(Arc<Fields>);

#[derive(Clone, Debug)]
struct Fields {
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    names_room: bool,
    sender: OwnedUserId,
    kind: TimelineEventType,
    /// What authorization reads instead of the type, if it is not the same.
    kind_to_judge: Option<TimelineEventType>,
    state_key: Option<String>,
    /// What authorization reads instead of the state key, if it is not the same.
    key_to_judge: Option<String>,
    content: Box<RawValue>,
    /// What authorization reads instead of the content, if it is not the same.
    to_judge: Option<Box<RawValue>>,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: u64,
    /// In milliseconds since 1970: in whatever year a server likes.
    time: i64,
    redacts: Option<OwnedEventId>,
    json: Arc<str>,
}

impl PartialEq for Pdu {
    fn eq(&self, other: &Self) -> bool {
        self.0.event_id == other.0.event_id && self.0.json == other.0.json
    }
}

impl Eq for Pdu {}

impl Pdu {
    /// Reads an event of unknown origin. `unsigned`, and `event_id` where the version derives it, are dropped.
    ///
    /// Answers [`Error::Malformed`] for whatever is not a well-formed event of the room version: the specification's
    /// "checks performed on receipt of a PDU", step 1, and "Size limits".
    pub fn parse(rules: &RoomVersionRules, bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_RAW_BYTES {
            return Err(malformed("event is too large"));
        }
        let object = match Opened::read(rules, bytes)?.into_canonical() {
            Ok(object) => object,
            Err(opened) => return Self::with_any_numbers(rules, opened),
        };
        match counted_in_characters(rules, &object) {
            Some(mut shortened) => {
                format::check(rules, &mut shortened)?;
                Self::of_checked_form(rules, object)
            }
            None => Self::from_object(rules, object),
        }
    }

    /// As [`Pdu::parse`], from an object already read strictly with [`json::object`].
    pub fn from_object(rules: &RoomVersionRules, mut object: CanonicalJsonObject) -> Result<Self, Error> {
        object.remove("unsigned");
        if rules.event_id_format != EventIdFormatVersion::V1 {
            object.remove("event_id");
        }
        let mut shortened = with_owned_key(rules, &object);
        format::check(rules, shortened.as_mut().unwrap_or(&mut object))?;
        Self::of_checked_form(rules, object)
    }

    /// An event of a room version before 6 with numbers that canonical JSON does not have.
    fn with_any_numbers(rules: &RoomVersionRules, mut opened: Opened) -> Result<Self, Error> {
        opened.object.remove("unsigned");
        let derived_id = rules.event_id_format != EventIdFormatVersion::V1;
        if derived_id {
            opened.object.remove("event_id");
        }
        let json = opened.text()?;
        if json.len() > MAX_BYTES {
            return Err(malformed("event is too large"));
        }
        let hash = opened.reference_hash(rules)?;
        let mut nearest = opened.nearest()?;
        let mut shortened = counted_in_characters(rules, &nearest);
        format::check(rules, shortened.as_mut().unwrap_or(&mut nearest))?;
        check_proofs(&nearest)?;
        let id =
            if derived_id { event_id(&format!("${hash}"))? } else { event_id(text(&nearest, "event_id")?)? };
        Self::assemble(rules, id.clone(), &nearest)?;
        Self::restore(rules, id, &json)
    }

    fn of_checked_form(rules: &RoomVersionRules, mut object: CanonicalJsonObject) -> Result<Self, Error> {
        object.remove("unsigned");
        let derived_id = rules.event_id_format != EventIdFormatVersion::V1;
        if derived_id {
            object.remove("event_id");
        }
        check_proofs(&object)?;
        let opened = Opened::canonical(object);
        let event_id = if derived_id {
            event_id(&format!("${}", opened.reference_hash(rules)?))?
        } else {
            event_id(text(&opened.object, "event_id")?)?
        };
        let pdu = Self::assemble(rules, event_id, &opened.object)?;
        if pdu.json().len() > MAX_BYTES { Err(malformed("event is too large")) } else { Ok(pdu) }
    }

    fn assemble(
        rules: &RoomVersionRules,
        id: OwnedEventId,
        object: &CanonicalJsonObject,
    ) -> Result<Self, Error> {
        let (kind, kind_to_judge) = read_kind(text(object, "type")?);
        let (room_id, names_room) = match object.get("room_id") {
            Some(CanonicalJsonValue::String(room_id)) => (self::room_id(room_id)?, true),
            None if kind == TimelineEventType::RoomCreate => (room_of_create(&id)?, false),
            _ => return Err(malformed("room_id is missing")),
        };
        let Some(CanonicalJsonValue::Object(content)) = object.get("content") else {
            return Err(malformed("content is not an object"));
        };
        let depth = u64::try_from(integer(object, "depth")?).map_err(|_| malformed("depth is negative"))?;
        let state_key = object.get("state_key").and_then(|key| key.as_str()).map(str::to_owned);
        let content_text = raw(content);
        Ok(Self(Arc::new(Fields {
            redacts: redacts(rules, &kind, object, content),
            event_id: id,
            room_id,
            names_room,
            sender: user_id(text(object, "sender")?)?,
            kind_to_judge,
            key_to_judge: state_key.as_deref().and_then(|key| state_key_to_judge(&kind, key)),
            state_key,
            to_judge: content_to_judge(rules, &kind, &content_text),
            content: content_text,
            prev_events: event_ids(rules, object, "prev_events")?,
            auth_events: event_ids(rules, object, "auth_events")?,
            depth,
            time: integer(object, "origin_server_ts")?,
            json: json::canonical(object).into(),
            kind,
        })))
    }

    /// The event's id.
    pub fn event_id(&self) -> &EventId {
        &self.0.event_id
    }

    /// The room, derived from the event's own id for the create event of a room of version 12 and later.
    pub fn room_id(&self) -> &RoomId {
        &self.0.room_id
    }

    /// Who sent it.
    pub fn sender(&self) -> &UserId {
        &self.0.sender
    }

    /// The event's type, which is written as the event has it.
    pub fn kind(&self) -> &TimelineEventType {
        &self.0.kind
    }

    /// Present for a state event.
    pub fn state_key(&self) -> Option<&str> {
        self.0.state_key.as_deref()
    }

    /// Type and state key of a state event.
    pub fn state(&self) -> Option<(StateEventType, &str)> {
        let key = self.state_key()?;
        Some((StateEventType::from(self.0.kind.to_string()), key))
    }

    /// The content, canonical JSON; in room versions 1 to 5 with any numbers.
    pub fn content(&self) -> &RawValue {
        &self.0.content
    }

    /// The content read as `T`; `None` when it does not fit. Read only the fields that matter: a peer writes the rest.
    pub fn content_as<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(self.0.content.get()).ok()
    }

    /// The content as an object, with the integers that come nearest to numbers that canonical JSON does not have.
    pub fn content_object(&self) -> CanonicalJsonObject {
        content_object(&self.0.content)
    }

    /// The events before it, as its server saw them.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.0.prev_events
    }

    /// The events that justify it.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.0.auth_events
    }

    /// Distance from the create event, as claimed; 0 to 2^53 − 1, in room versions 1 to 5 to 2^63 − 1.
    pub fn depth(&self) -> u64 {
        self.0.depth
    }

    /// When its server made it, as claimed; whatever is before 1970 is 1970, whatever is later than 2^53 − 1 is that.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(u64::try_from(self.0.time).unwrap_or_default()))
    }

    /// When its server made it, as claimed, in milliseconds since 1970.
    pub(crate) fn time(&self) -> i64 {
        self.0.time
    }

    /// For a redaction event: what it redacts, wherever the room version puts it. State redacts nothing, whatever its type.
    pub fn redacts(&self) -> Option<&EventId> {
        self.0.redacts.as_deref().filter(|_| self.state_key().is_none())
    }

    /// How it relates to another event, and to which (`m.relates_to`). State relates to nothing, nor does what names a type or an
    /// event that is longer than [`MAX_ID_BYTES`].
    pub fn relation(&self) -> Option<(String, OwnedEventId)> {
        #[derive(Deserialize)]
        struct Relating {
            #[serde(rename = "m.relates_to")]
            relates_to: Value,
        }
        if self.state_key().is_some() {
            return None;
        }
        let Relating { relates_to } = self.content_as()?;
        let rel_type = short(relates_to.get("rel_type")?.as_str()?).ok()?;
        let parent = event_id(relates_to.get("event_id")?.as_str()?).ok()?;
        Some((rel_type.to_owned(), parent))
    }

    /// For how long every device in the room gets the event whatever its timeline limit, in milliseconds (MSC4354).
    pub fn sticky_ms(&self) -> Option<u32> {
        #[derive(Deserialize)]
        struct Stuck {
            #[serde(rename = "msc4354_sticky")]
            sticky: Sticky,
        }
        #[derive(Deserialize)]
        struct Sticky {
            duration_ms: u64,
        }
        if !self.0.json.contains(STICKY) {
            return None;
        }
        let stuck: Stuck = serde_json::from_str(&self.0.json).ok()?;
        Some(u32::try_from(stuck.sticky.duration_ms).unwrap_or(MAX_STICKY_MS).min(MAX_STICKY_MS))
    }

    /// The whole event in canonical JSON: what is stored and what peers are sent. No `unsigned`, no derived `event_id`.
    pub fn json(&self) -> &str {
        &self.0.json
    }

    /// The whole event for peers, as a raw value.
    pub fn to_raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.0.json.to_string()).expect("a stored event is valid JSON")
    }

    /// The whole event as an object, with the integers that come nearest to numbers that canonical JSON does not have:
    /// to be read, not to be hashed.
    pub fn to_object(&self) -> CanonicalJsonObject {
        self.opened().nearest().expect("its own numbers have a place")
    }

    pub(crate) fn opened(&self) -> Opened {
        Opened::read_any(self.0.json.as_bytes()).expect("a stored event is JSON")
    }

    /// Whether its id was chosen by its server, as in room versions 1 and 2, and so may be that of another event too.
    pub fn has_own_id(&self, rules: &RoomVersionRules) -> bool {
        rules.event_id_format == EventIdFormatVersion::V1
    }

    /// Whether the other, of the same room version, is this very event: all but what redaction takes away and the
    /// signatures is the same, the hash of what it takes away included.
    pub fn is_same(&self, rules: &RoomVersionRules, other: &Self) -> bool {
        let hash = |pdu: &Self| pdu.opened().reference_hash(rules).ok();
        self.0.event_id == other.0.event_id && (!self.has_own_id(rules) || hash(self) == hash(other))
    }

    /// The same event with other members: what redaction leaves, or more signatures. The id stays. What was read once is not
    /// verified again: events are stored of which less was asked when they came.
    pub(crate) fn with(&self, rules: &RoomVersionRules, opened: Opened) -> Result<Self, Error> {
        let json = match opened.into_canonical() {
            Ok(object) => json::canonical(&object),
            Err(opened) => opened.text()?,
        };
        Self::restore_shared(rules, self.0.event_id.clone(), json.into())
    }
}

/// The id of what may be an event and is malformed as one; `None` where it has none.
pub fn id_of(rules: &RoomVersionRules, bytes: &[u8]) -> Option<OwnedEventId> {
    let mut opened = Opened::read_any(bytes).ok()?;
    if rules.event_id_format == EventIdFormatVersion::V1 {
        return event_id(text(&opened.object, "event_id").ok()?).ok();
    }
    opened.object.remove("event_id");
    event_id(&format!("${}", opened.reference_hash(rules).ok()?)).ok()
}

fn raw(object: &CanonicalJsonObject) -> Box<RawValue> {
    to_raw_value(object).expect("canonical JSON has string keys and plain values")
}

fn content_object(content: &RawValue) -> CanonicalJsonObject {
    Opened::read_any(content.get().as_bytes()).and_then(Opened::nearest).unwrap_or_default()
}

fn malformed(what: &str) -> Error {
    Error::Malformed(what.to_owned())
}

fn text<'a>(object: &'a CanonicalJsonObject, field: &str) -> Result<&'a str, Error> {
    object
        .get(field)
        .and_then(|value| value.as_str())
        .ok_or_else(|| Error::Malformed(format!("{field} is not a string")))
}

fn integer(object: &CanonicalJsonObject, field: &str) -> Result<i64, Error> {
    object
        .get(field)
        .and_then(CanonicalJsonValue::as_integer)
        .map(i64::from)
        .ok_or_else(|| Error::Malformed(format!("{field} is not an integer")))
}

fn short(id: &str) -> Result<&str, Error> {
    if id.len() > MAX_ID_BYTES { Err(malformed("identifier is longer than 255 bytes")) } else { Ok(id) }
}

fn event_id(id: &str) -> Result<OwnedEventId, Error> {
    EventId::parse(short(id)?).map_err(|error| Error::Malformed(format!("event id: {error}")))
}

fn room_id(id: &str) -> Result<OwnedRoomId, Error> {
    RoomId::parse(short(id)?).map_err(|error| Error::Malformed(format!("room id: {error}")))
}

fn user_id(id: &str) -> Result<OwnedUserId, Error> {
    UserId::parse(short(id)?).map_err(|error| Error::Malformed(format!("user id: {error}")))
}

/// Room versions 12 and later: the room is named after its create event.
pub(crate) fn room_of_create(event_id: &EventId) -> Result<OwnedRoomId, Error> {
    room_id(&format!("!{}", &event_id.as_str()[1..]))
}

fn event_ids(
    rules: &RoomVersionRules,
    object: &CanonicalJsonObject,
    field: &str,
) -> Result<Vec<OwnedEventId>, Error> {
    // Room versions 1 and 2 pair the id with its hashes.
    let paired = rules.events_reference_format == EventsReferenceFormatVersion::V1;
    let list = object.get(field).and_then(|list| list.as_array()).unwrap_or_default();
    let id = |value: &CanonicalJsonValue| match value {
        CanonicalJsonValue::String(id) if !paired => event_id(id),
        CanonicalJsonValue::Array(pair) if paired => match pair.as_slice() {
            [CanonicalJsonValue::String(id), hashes] if are_texts(hashes) => event_id(id),
            _ => Err(Error::Malformed(format!("{field} holds something else than ids with their hashes"))),
        },
        _ => Err(Error::Malformed(format!("{field} holds something else than event ids"))),
    };
    list.iter().map(id).collect()
}

fn redacts(
    rules: &RoomVersionRules,
    kind: &TimelineEventType,
    object: &CanonicalJsonObject,
    content: &CanonicalJsonObject,
) -> Option<OwnedEventId> {
    if *kind != TimelineEventType::RoomRedaction {
        return None;
    }
    let from = if rules.redaction.content_field_redacts { content } else { object };
    event_id(from.get("redacts")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use ruma::{CanonicalJsonValue, OwnedEventId, room_version_rules::RoomVersionRules};
    use serde_json::{Value, json};

    use super::Pdu;
    use crate::{
        laws::{Room, sample},
        redact,
    };

    #[test]
    fn what_is_said_to_relate_to_an_event_names_it_and_is_no_state() {
        let alice = "@a:a.example";
        let mut room = Room::new(&RoomVersionRules::V11, alice);
        let (long, longer) = ("x".repeat(254), "x".repeat(255));
        let (parent, kind) = (format!("${long}"), format!("m{long}"));
        let said = json!({ "m.relates_to": { "rel_type": kind, "event_id": parent, "more": [1] } });
        let related = room.message(alice, said.clone()).relation();
        assert_eq!(related, Some((kind, OwnedEventId::try_from(parent.as_str()).unwrap())));
        assert_eq!(room.send(alice, "m.room.topic", Some(""), &said).relation(), None);
        for no_relation in [
            json!({ "rel_type": format!("m{longer}"), "event_id": parent }),
            json!({ "rel_type": "m.thread", "event_id": format!("${longer}") }),
            json!({ "rel_type": "m.thread", "event_id": "parent" }),
            json!({ "rel_type": 1, "event_id": parent }),
            json!({ "event_id": parent }),
            json!({ "rel_type": "m.thread" }),
            json!(["m.thread", parent]),
            json!("m.thread"),
        ] {
            let said = json!({ "m.relates_to": no_relation });
            assert_eq!(room.message(alice, said.clone()).relation(), None, "{said}");
        }
        assert_eq!(room.say(alice, "hello").relation(), None);
    }

    #[test]
    fn what_an_earlier_release_has_stored_is_redacted_whatever_it_names_others_by() {
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V2] {
            let (_, _, pdu) = sample(rules);
            let id = pdu.event_id().to_owned();
            for named in [json!(id), json!([id, "hash"]), json!([id, { "sha256": 1 }])] {
                for field in ["prev_events", "auth_events"] {
                    let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
                    event[field] = json!([named]);
                    let text = event.to_string();
                    assert!(Pdu::parse(rules, text.as_bytes()).is_err(), "{text}");
                    let stored = Pdu::restore(rules, id.clone(), &text).unwrap();
                    let left = redact::event(rules, &stored).unwrap();
                    assert_eq!(left.content().get(), "{}");
                    assert_eq!(
                        (left.prev_events(), left.auth_events()),
                        (stored.prev_events(), stored.auth_events())
                    );
                }
            }
        }
    }

    #[test]
    fn before_version_11_characters_of_a_state_key_count() {
        let keyed = |rules: &'static RoomVersionRules, key: String| {
            let mut object = sample(rules).2.to_object();
            object.insert("state_key".to_owned(), CanonicalJsonValue::String(key));
            object
        };
        let parse = |rules: &'static RoomVersionRules, key: String| {
            Pdu::parse(rules, &serde_json::to_vec(&keyed(rules, key)).unwrap())
        };
        let (old, new) = (&RoomVersionRules::V10, &RoomVersionRules::V11);
        let pdu = parse(old, "💥".repeat(70)).unwrap();
        assert_eq!(pdu.state_key(), Some("💥".repeat(70).as_str()));
        assert!(parse(new, "💥".repeat(70)).is_err());
        assert!(parse(old, "💥".repeat(256)).is_err());
        assert!(parse(old, "x".repeat(256)).is_err());
        assert!(Pdu::from_object(old, keyed(old, "💥".repeat(70))).is_err(), "none of our own");
    }
}
