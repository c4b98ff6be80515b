//! What somebody who is not in a room is told of it: stripped state.

use chappe_rules::{Pdu, auth::StateKey};
use ruma::{UserId, events::StateEventType};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{Result, desk::Desk};

/// Stripped state taken from another server at most: entries and bytes.
const MOST_ENTRIES: usize = 64;
const MOST_BYTES: usize = 48 * 1_024;

/// An event without what only members need.
pub(crate) fn stripped(pdu: &Pdu) -> Box<RawValue> {
    let event = json!({
        "type": pdu.kind(), "state_key": pdu.state_key(), "sender": pdu.sender(), "content": pdu.content(),
    });
    to_raw_value(&event).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl Desk<'_> {
    /// The state events that tell an outsider what room this is, and those about `users`.
    pub(crate) async fn introduction(&self, users: &[&UserId]) -> Result<Vec<Pdu>> {
        let kinds = [
            StateEventType::RoomCreate,
            StateEventType::RoomName,
            StateEventType::RoomAvatar,
            StateEventType::RoomTopic,
            StateEventType::RoomJoinRules,
            StateEventType::RoomCanonicalAlias,
            StateEventType::RoomEncryption,
            StateEventType::from("im.vector.room.access_rules"),
        ];
        let mut keys: Vec<StateKey> = kinds.into_iter().map(|kind| (kind, String::new())).collect();
        keys.extend(users.iter().map(|user| (StateEventType::RoomMember, user.to_string())));
        Ok(self.held(&keys).await?.0.into_values().map(|(_, pdu)| pdu).collect())
    }

    /// The same as other servers are told it: full events where the room version asks for them.
    pub(crate) async fn introduction_for_peers(&self, users: &[&UserId]) -> Result<Vec<Box<RawValue>>> {
        let whole = self.rules.authorization.room_create_event_id_as_room_id;
        let told = self.introduction(users).await?;
        Ok(told.iter().map(|pdu| if whole { pdu.to_raw() } else { stripped(pdu) }).collect())
    }
}

/// What another server told of a room, reduced to what a client may be shown: well-formed entries, a bounded number.
pub(crate) fn sanitized(told: &[Box<RawValue>]) -> Vec<Box<RawValue>> {
    let mut bytes = 0;
    let mut kept = Vec::new();
    for raw in told.iter().take(MOST_ENTRIES) {
        let Some(entry) = sanitize(raw) else { continue };
        bytes += entry.get().len();
        if bytes > MOST_BYTES {
            break;
        }
        kept.push(entry);
    }
    kept
}

fn sanitize(raw: &RawValue) -> Option<Box<RawValue>> {
    if raw.get().len() > MOST_BYTES {
        return None;
    }
    let event = chappe_rules::json::object(raw.get().as_bytes()).ok()?;
    let kind = event.get("type")?.as_str()?;
    let state_key = event.get("state_key")?.as_str()?;
    let sender = UserId::parse(event.get("sender")?.as_str()?).ok()?;
    let content = event.get("content")?.as_object()?;
    let mut stripped: Value = json!({
        "type": kind, "state_key": state_key, "sender": sender, "content": content,
    });
    if let Some(at) = event.get("origin_server_ts").filter(|_| kind == "m.room.create") {
        stripped["origin_server_ts"] = Value::from(at.clone());
    }
    to_raw_value(&stripped).ok()
}
