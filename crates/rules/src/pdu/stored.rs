//! Events as this server has stored them: what was verified once is only read.

use std::sync::Arc;

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, events::TimelineEventType, room_version_rules::RoomVersionRules,
};
use serde::{Deserialize, de::Error as _};
use serde_json::value::RawValue;

use super::{
    Fields, Pdu, event_id,
    lenient::{content_to_judge, state_key_to_judge},
    malformed, read_kind, room_of_create,
};
use crate::Error;

/// The deepest event of a room version without canonical JSON.
const MAX_DEPTH: u64 = (1 << 63) - 1;

impl Pdu {
    /// Takes back an event that this server has stored: `json` is what [`Pdu::json`] gave, `event_id` its id.
    /// Nothing is verified again, only what cannot be read is an error.
    pub fn restore(rules: &RoomVersionRules, event_id: OwnedEventId, json: &str) -> Result<Self, Error> {
        Self::restore_shared(rules, event_id, json.into())
    }

    /// As [`Pdu::restore`], of a text that others keep as well.
    pub fn restore_shared(
        rules: &RoomVersionRules,
        event_id: OwnedEventId,
        json: Arc<str>,
    ) -> Result<Self, Error> {
        let stored: Stored = serde_json::from_str(&json).map_err(|error| malformed(&error.to_string()))?;
        let (room_id, names_room) = match stored.room_id {
            Some(room_id) => (room_id, true),
            None => (room_of_create(&event_id)?, false),
        };
        let (kind, kind_to_judge) = stored.kind;
        let redacts = if kind == TimelineEventType::RoomRedaction && rules.redaction.content_field_redacts {
            serde_json::from_str::<Redacting>(stored.content.get()).ok().and_then(|content| content.redacts)
        } else {
            stored.redacts
        };
        if stored.depth > MAX_DEPTH {
            return Err(malformed("depth is too large"));
        }
        Ok(Self(Arc::new(Fields {
            redacts: redacts.filter(|_| kind == TimelineEventType::RoomRedaction),
            event_id,
            room_id,
            names_room,
            sender: stored.sender,
            kind_to_judge,
            key_to_judge: stored.state_key.as_deref().and_then(|key| state_key_to_judge(&kind, key)),
            to_judge: content_to_judge(rules, &kind, &stored.content),
            kind,
            state_key: stored.state_key,
            content: stored.content,
            prev_events: stored.prev_events,
            auth_events: stored.auth_events,
            depth: stored.depth,
            time: stored.time,
            json,
        })))
    }
}

#[derive(Deserialize)]
struct Stored {
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(rename = "type", deserialize_with = "kind")]
    kind: (TimelineEventType, Option<TimelineEventType>),
    state_key: Option<String>,
    content: Box<RawValue>,
    #[serde(deserialize_with = "references")]
    prev_events: Vec<OwnedEventId>,
    #[serde(deserialize_with = "references")]
    auth_events: Vec<OwnedEventId>,
    depth: u64,
    #[serde(rename = "origin_server_ts", deserialize_with = "moment")]
    time: i64,
    #[serde(default, deserialize_with = "lenient_id")]
    redacts: Option<OwnedEventId>,
}

#[derive(Deserialize)]
struct Redacting {
    #[serde(default, deserialize_with = "lenient_id")]
    redacts: Option<OwnedEventId>,
}

fn kind<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<(TimelineEventType, Option<TimelineEventType>), D::Error> {
    Ok(read_kind(&String::deserialize(deserializer)?))
}

fn references<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<OwnedEventId>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Reference {
        Id(OwnedEventId),
        Pair(OwnedEventId, serde::de::IgnoredAny),
    }
    let id = |reference| match reference {
        Reference::Id(id) | Reference::Pair(id, _) => id,
    };
    Ok(Vec::<Reference>::deserialize(deserializer)?.into_iter().map(id).collect())
}

fn lenient_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<OwnedEventId>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(|id| event_id(id).ok()))
}

fn moment<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let late = || number.as_u64().map(|_| i64::MAX);
    number.as_i64().or_else(late).ok_or_else(|| D::Error::custom("origin_server_ts is not an integer"))
}
