//! What somebody who is not in a room is told of it: stripped state.

use std::time::Duration;

use chappe_rules::{Pdu, auth::StateKey};
use futures_util::future::join_all;
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
/// For how long the keys of its events are looked for: whoever invites waits.
const LONGEST: Duration = Duration::from_secs(5);
/// What events have and stripped state has not.
const EVIDENCE: [&str; 4] = ["auth_events", "hashes", "prev_events", "signatures"];

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

/// What another server told of a room, checked.
struct Told {
    /// Events of the room, rightly signed; the create event first.
    whole: Vec<Pdu>,
    /// Entries that are no events and claim to be none, in the form for clients.
    bare: Vec<Box<RawValue>>,
    /// What is wrong with an entry that is none of these.
    fault: Option<&'static str>,
}

impl Told {
    fn has_create(&self) -> bool {
        self.whole.first().is_some_and(is_create)
    }

    fn shown(self) -> Vec<Box<RawValue>> {
        bounded(self.whole.iter().filter_map(chappe_rules::client::stripped).chain(self.bare))
    }
}

impl Inner {
    /// What the server that invites tells of a room, in the form for clients. Where the room's id comes from its create
    /// event, that one is needed, and [`Error::InvalidParam`] says that something is wrong.
    ///
    /// Specification: server-server API, `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`.
    pub(crate) async fn told_with_invite(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        told: &[Box<RawValue>],
    ) -> Result<Vec<Box<RawValue>>> {
        if !rules.authorization.room_create_event_id_as_room_id {
            return Ok(sanitized(told));
        }
        let told = self.told(rules, room, told).await;
        match told.fault {
            Some(fault) => Err(Error::InvalidParam(fault.to_owned())),
            None if told.has_create() => Ok(told.shown()),
            None => Err(Error::InvalidParam("the room's create event is needed".to_owned())),
        }
    }

    /// The same of the server that a knock was sent to. What is wrong is left out.
    ///
    /// Specification: server-server API, `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`.
    pub(crate) async fn told_at_knock(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        told: &[Box<RawValue>],
    ) -> Vec<Box<RawValue>> {
        self.told(rules, room, told).await.shown()
    }

    /// Events whose keys are not to be had are left out and are no fault: their servers may be gone for good. The create
    /// event stays where the room's id, which is its hash, vouches for it.
    async fn told(&self, rules: &'static RoomVersionRules, room: &RoomId, told: &[Box<RawValue>]) -> Told {
        let (mut pdus, mut bare, mut fault) = (Vec::new(), Vec::new(), None);
        for raw in told.iter().take(MOST_ENTRIES) {
            match parse(rules, room, raw) {
                Ok(pdu) if pdu.state_key().is_some() => pdus.push(pdu),
                _ => match bare_entry(rules, raw) {
                    Some(entry) => bare.push(entry),
                    None => fault = Some("the state of the room must be told in events of the room"),
                },
            }
        }
        pdus.sort_by_key(|pdu| !is_create(pdu));
        let checked = pdus.iter().cloned().map(|pdu| {
            let checked = self.try_all(rules, vec![pdu]);
            // One by one: none waits for the keys of another.
            async move { self.world.timeout(LONGEST, checked).await.and_then(|mut checked| checked.pop()) }
        });
        let checked = join_all(checked).await;
        let mut whole = Vec::new();
        for (pdu, proven) in pdus.into_iter().zip(checked) {
            let is_vouched_for = rules.authorization.room_create_event_id_as_room_id && is_create(&pdu);
            match proven {
                Some(Ok(proven)) => whole.push(proven.pdu().clone()),
                None | Some(Err(chappe_rules::Error::UnknownKey(_))) if is_vouched_for => whole.push(pdu),
                None | Some(Err(chappe_rules::Error::UnknownKey(_))) => {}
                Some(Err(_)) => fault = Some("an event of the state that is told is not rightly signed"),
            }
        }
        Told { whole, bare, fault }
    }
}

fn is_create(pdu: &Pdu) -> bool {
    *pdu.kind() == TimelineEventType::RoomCreate && pdu.state_key() == Some("")
}

/// An entry as all were before version 1.16 of the specification: without what an event needs. Until July 2026 Synapse told
/// all but the create event so even where that gives the room its id.
fn bare_entry(rules: &RoomVersionRules, raw: &RawValue) -> Option<Box<RawValue>> {
    let entry = chappe_rules::json::object(raw.get().as_bytes()).ok()?;
    let is_create = entry.get("type").and_then(|kind| kind.as_str()) == Some("m.room.create");
    let names_room = rules.authorization.room_create_event_id_as_room_id && is_create;
    let is_bare = !EVIDENCE.iter().any(|field| entry.contains_key(*field));
    sanitize(raw).filter(|_| is_bare && !names_room)
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
