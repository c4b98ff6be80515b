//! An event that a local user wants to exist: type, content, and where it points.

use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, UserId, events::TimelineEventType};
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// An event before it has a sender, a place in the graph, hashes and a signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Event type.
    pub kind: TimelineEventType,
    /// State key; none for a message.
    pub state_key: Option<String>,
    /// Content as the client gave it.
    pub content: Map<String, Value>,
    /// For a redaction: the event to redact.
    pub redacts: Option<OwnedEventId>,
    /// For a redaction: the types of relation whose events are redacted as well; `*` is any (MSC3912).
    pub with_relations: Vec<String>,
    /// Time to claim instead of now; application services may ask for it.
    pub timestamp: Option<MilliSecondsSinceUnixEpoch>,
    /// For how long every device in the room gets it, in milliseconds (MSC4354).
    pub sticky_ms: Option<u32>,
}

impl Draft {
    /// A message event.
    pub fn message(kind: TimelineEventType, content: Map<String, Value>) -> Self {
        Self {
            kind,
            state_key: None,
            content,
            redacts: None,
            with_relations: Vec::new(),
            timestamp: None,
            sticky_ms: None,
        }
    }

    /// A state event.
    pub fn state(
        kind: impl Into<TimelineEventType>,
        state_key: impl Into<String>,
        content: Map<String, Value>,
    ) -> Self {
        Self { state_key: Some(state_key.into()), ..Self::message(kind.into(), content) }
    }

    /// A redaction of `event`.
    pub fn redaction(event: &EventId, reason: Option<&str>) -> Self {
        let mut content = Map::new();
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), json!(reason));
        }
        Self { redacts: Some(event.to_owned()), ..Self::message(TimelineEventType::RoomRedaction, content) }
    }

    /// A membership event of `user` with content `content`, which holds `membership`.
    pub(crate) fn member(user: &UserId, content: Map<String, Value>) -> Self {
        Self::state(TimelineEventType::RoomMember, user.as_str(), content)
    }

    /// Content from JSON text, which must be an object.
    pub fn content_from(json: &str) -> Result<Map<String, Value>> {
        serde_json::from_str(json).map_err(|_| Error::BadJson("content must be a JSON object".to_owned()))
    }
}
