//! What somebody who is not in a room is told of it: stripped state.

use chappe_rules::{Pdu, auth::StateKey};
use ruma::{
    RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{Error, Inner, Result, desk::Desk, receive::parse};

/// Stripped state taken from another server at most: entries and bytes.
const MOST_ENTRIES: usize = 64;
const MOST_BYTES: usize = 48 * 1_024;

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

    /// The same as other servers are told it: whole events, which they can check.
    pub(crate) async fn introduction_for_peers(&self, users: &[&UserId]) -> Result<Vec<Box<RawValue>>> {
        Ok(self.introduction(users).await?.iter().map(Pdu::to_raw).collect())
    }
}

impl Inner {
    /// What another server tells of a room, in the form for clients. Where the room's id comes from its create event,
    /// whole events are needed, that one among them; of the others those with right signatures count.
    pub(crate) async fn told_of(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        told: &[Box<RawValue>],
    ) -> Result<Vec<Box<RawValue>>> {
        if !rules.authorization.room_create_event_id_as_room_id {
            return Ok(sanitized(told));
        }
        let faulty = |what: &str| Error::InvalidParam(what.to_owned());
        let whole = |raw: &RawValue| parse(rules, room, raw).ok().filter(|pdu| pdu.state().is_some());
        let pdus: Option<Vec<Pdu>> = told.iter().take(MOST_ENTRIES).map(|raw| whole(raw)).collect();
        let pdus = pdus.ok_or_else(|| faulty("the state of the room must be told in events of the room"))?;
        // Being of this room is what a create event proves by its hash.
        let (create, others): (Vec<Pdu>, _) =
            pdus.into_iter().partition(|pdu| *pdu.kind() == TimelineEventType::RoomCreate);
        let create = create.into_iter().next().ok_or_else(|| faulty("the room's create event is needed"))?;
        let proven = self.check_all(rules, others).await.into_iter().filter_map(Result::ok);
        let events = std::iter::once(create).chain(proven.map(|proven| proven.pdu().clone()));
        Ok(bounded(events.filter_map(|pdu| chappe_rules::client::stripped(&pdu))))
    }
}

/// What another server told of a room, reduced to what a client may be shown: well-formed entries, a bounded number.
pub(crate) fn sanitized(told: &[Box<RawValue>]) -> Vec<Box<RawValue>> {
    bounded(told.iter().take(MOST_ENTRIES).filter_map(|raw| sanitize(raw)))
}

fn bounded(entries: impl Iterator<Item = Box<RawValue>>) -> Vec<Box<RawValue>> {
    let mut bytes = 0;
    let fits = entries.take_while(|entry| {
        bytes += entry.get().len();
        bytes <= MOST_BYTES
    });
    fits.collect()
}

fn sanitize(raw: &RawValue) -> Option<Box<RawValue>> {
    if raw.get().len() > MOST_BYTES {
        return None;
    }
    let event = chappe_rules::json::nearest(raw.get().as_bytes()).ok()?;
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::RawValue};

    use super::sanitized;

    #[test]
    fn what_is_told_of_an_old_room_has_the_nearest_numbers() {
        let told = |content: &str| {
            let text = format!(
                r#"{{"type":"m.room.power_levels","state_key":"","sender":"@a:a.example","content":{content}}}"#
            );
            RawValue::from_string(text).unwrap()
        };
        let levels = r#"{"ban":50.5,"users":{"@a:a.example":18446744073709551617}}"#;
        let shown = sanitized(&[told(levels), told(r#"{"ban":1.5,"ban":2.5}"#), told("1.5")]);
        let shown: Vec<Value> = shown.iter().map(|raw| serde_json::from_str(raw.get()).unwrap()).collect();
        let levels = json!({ "ban": 50, "users": { "@a:a.example": 9_007_199_254_740_991_u64 } });
        let kind = "m.room.power_levels";
        let only = json!({ "type": kind, "state_key": "", "sender": "@a:a.example", "content": levels });
        assert_eq!(shown, [only]);
    }
}
