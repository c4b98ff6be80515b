//! EDUs that are not kept on disk: receipts, typing, presence. Each is a last word that replaces the one before.

use std::collections::BTreeMap;

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};

/// More of a kind are not kept for one destination.
const MOST: usize = 2_000;
/// Users in one presence EDU.
const PRESENCES: usize = 50;

/// A read receipt's place: room, user, thread (empty for none).
pub(super) type ReceiptPlace = (OwnedRoomId, OwnedUserId, String);

/// A presence of a user, as its EDU carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceNews {
    /// `online`, `unavailable` or `offline`.
    pub presence: String,
    /// What the user says of it.
    pub status: Option<String>,
    /// Milliseconds since the user was last active.
    pub last_active_ago: u64,
    /// Whether the user is active now.
    pub currently_active: bool,
}

/// What waits in memory for one destination.
#[derive(Debug, Default)]
pub(super) struct Fleeting {
    receipts: BTreeMap<ReceiptPlace, (OwnedEventId, u64)>,
    typing: BTreeMap<(OwnedRoomId, OwnedUserId), bool>,
    presence: BTreeMap<OwnedUserId, PresenceNews>,
}

fn add<K: Ord, V>(to: &mut BTreeMap<K, V>, key: K, value: V) {
    if to.len() < MOST || to.contains_key(&key) {
        to.insert(key, value);
    }
}

impl Fleeting {
    /// A receipt at an event, made at a time in milliseconds since the Unix epoch.
    pub(super) fn receipt(&mut self, place: ReceiptPlace, event: OwnedEventId, ts: u64) {
        add(&mut self.receipts, place, (event, ts));
    }

    pub(super) fn typing(&mut self, room: OwnedRoomId, user: OwnedUserId, typing: bool) {
        add(&mut self.typing, (room, user), typing);
    }

    pub(super) fn presence(&mut self, user: OwnedUserId, news: PresenceNews) {
        add(&mut self.presence, user, news);
    }

    /// Forgets what is about this moment.
    pub(super) fn drop_momentary(&mut self) {
        self.typing.clear();
        self.presence.clear();
    }

    /// Takes up to `limit` EDUs, the most telling first.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Value> {
        let mut edus = Vec::new();
        while edus.len() < limit
            && let Some(((room, user), typing)) = self.typing.pop_first()
        {
            edus.push(edu("m.typing", &json!({ "room_id": room, "user_id": user, "typing": typing })));
        }
        while edus.len() < limit && !self.receipts.is_empty() {
            edus.push(edu("m.receipt", &self.take_receipts()));
        }
        while edus.len() < limit && !self.presence.is_empty() {
            edus.push(edu("m.presence", &json!({ "push": self.take_presence() })));
        }
        edus
    }

    /// One EDU holds one receipt of each user in each room; further threads go into the next.
    fn take_receipts(&mut self) -> Value {
        let mut rooms: BTreeMap<OwnedRoomId, Map<String, Value>> = BTreeMap::new();
        let mut left = BTreeMap::new();
        for ((room, user, thread), (event, ts)) in std::mem::take(&mut self.receipts) {
            let users = rooms.entry(room.clone()).or_default();
            if users.contains_key(user.as_str()) {
                left.insert((room, user, thread), (event, ts));
                continue;
            }
            let mut data = json!({ "ts": ts });
            if !thread.is_empty() {
                data["thread_id"] = Value::String(thread);
            }
            users.insert(user.to_string(), json!({ "data": data, "event_ids": [event] }));
        }
        self.receipts = left;
        let rooms = rooms.into_iter().map(|(room, users)| (room.to_string(), json!({ "m.read": users })));
        Value::Object(rooms.collect())
    }

    fn take_presence(&mut self) -> Vec<Value> {
        let mut push = Vec::new();
        while push.len() < PRESENCES
            && let Some((user, news)) = self.presence.pop_first()
        {
            let mut update = json!({
                "user_id": user,
                "presence": news.presence,
                "last_active_ago": news.last_active_ago,
                "currently_active": news.currently_active,
            });
            if let Some(status) = news.status {
                update["status_msg"] = Value::String(status);
            }
            push.push(update);
        }
        push
    }
}

/// An EDU as a transaction carries it.
pub(super) fn edu(kind: &str, content: &Value) -> Value {
    json!({ "edu_type": kind, "content": content })
}

#[cfg(test)]
mod tests {
    use ruma::{owned_event_id, owned_room_id, owned_user_id};

    use super::*;

    #[test]
    fn last_words_replace_the_ones_before() {
        let mut fleeting = Fleeting::default();
        let (room, user) = (owned_room_id!("!r:a"), owned_user_id!("@u:a"));
        fleeting.typing(room.clone(), user.clone(), true);
        fleeting.typing(room.clone(), user.clone(), false);
        for event in [owned_event_id!("$1"), owned_event_id!("$2")] {
            fleeting.receipt((room.clone(), user.clone(), String::new()), event, 5);
        }
        fleeting.receipt((room, user, "main".to_owned()), owned_event_id!("$3"), 6);
        let edus = fleeting.take(10);
        assert_eq!(edus.len(), 3);
        assert_eq!(edus[0]["content"]["typing"], false);
        let read = |edu: &Value| edu["content"]["!r:a"]["m.read"]["@u:a"].clone();
        assert_eq!(read(&edus[1])["event_ids"], json!(["$2"]));
        assert_eq!(read(&edus[2])["data"], json!({ "ts": 6, "thread_id": "main" }));
        assert!(fleeting.take(10).is_empty());
    }

    #[test]
    fn what_is_for_the_moment_is_dropped_and_receipts_stay() {
        let mut fleeting = Fleeting::default();
        fleeting.typing(owned_room_id!("!r:a"), owned_user_id!("@u:a"), true);
        let place = (owned_room_id!("!r:a"), owned_user_id!("@u:a"), String::new());
        fleeting.receipt(place, owned_event_id!("$1"), 5);
        fleeting.drop_momentary();
        assert_eq!(fleeting.take(10).len(), 1);
    }
}
