//! EDUs that are not kept on disk: receipts, typing, presence. Each is a last word that replaces the one before.

use std::{collections::BTreeMap, time::Duration};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// More of a kind are not kept for one destination.
const MOST: usize = 2_000;
/// Nor more receipts, nor who types, for one that is being waited for: it may be one of thousands that never come back.
const MOST_AWAY: usize = 100;
/// That somebody types, or has stopped, is worth nothing after so long: they go on, or other servers take it that they do not.
const TYPING_LASTS: Duration = Duration::from_secs(30);
/// Receipts in one EDU; servers look at so many.
const RECEIPTS: usize = 100;
/// Users in one presence EDU.
const PRESENCES: usize = 50;

/// A read receipt's place: room, user, thread (empty for none).
pub(super) type ReceiptPlace = (OwnedRoomId, OwnedUserId, String);

/// Receipts: the event, and when it was read in milliseconds since the Unix epoch.
pub(super) type Receipts = BTreeMap<ReceiptPlace, (OwnedEventId, u64)>;

/// Where somebody types: room, user.
pub(super) type TypingPlace = (OwnedRoomId, OwnedUserId);

/// Whether somebody types, and since when that is so.
pub(super) type Typing = (bool, Instant);

/// What was taken to be sent and goes with a later transaction if this one is not taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) receipts: Receipts,
    pub(super) typing: BTreeMap<TypingPlace, Typing>,
}

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
    receipts: Receipts,
    typing: BTreeMap<TypingPlace, Typing>,
    presence: BTreeMap<OwnedUserId, PresenceNews>,
}

/// Whether what was said of typing is still worth something at a time.
pub(super) fn is_worth_telling((_, said): Typing, at: Instant) -> bool {
    at.saturating_duration_since(said) < TYPING_LASTS
}

fn add<K: Ord, V>(to: &mut BTreeMap<K, V>, most: usize, key: K, value: V) {
    if to.len() < most || to.contains_key(&key) {
        to.insert(key, value);
    }
}

impl Fleeting {
    /// A receipt at an event, made at a time in milliseconds since the Unix epoch.
    pub(super) fn receipt(&mut self, place: ReceiptPlace, event: OwnedEventId, ts: u64) {
        self.add_receipt(MOST, place, (event, ts));
    }

    /// The same, for a destination that is being waited for.
    pub(super) fn late_receipt(&mut self, place: ReceiptPlace, event: OwnedEventId, ts: u64) {
        self.add_receipt(MOST_AWAY, place, (event, ts));
    }

    /// Where there is no room, the oldest receipt goes.
    fn add_receipt(&mut self, most: usize, place: ReceiptPlace, (event, ts): (OwnedEventId, u64)) {
        if self.receipts.len() >= most && !self.receipts.contains_key(&place) {
            let oldest = self.receipts.iter().min_by_key(|(_, (_, ts))| *ts);
            let Some((oldest, _)) = oldest.filter(|(_, (_, oldest))| *oldest <= ts) else { return };
            let oldest = oldest.clone();
            self.receipts.remove(&oldest);
        }
        self.receipts.insert(place, (event, ts));
    }

    /// What was taken and not delivered, as far as there is nothing newer.
    pub(super) fn give_back(&mut self, Taken { receipts, typing }: Taken) {
        for (place, (event, ts)) in receipts {
            if !self.receipts.contains_key(&place) {
                self.late_receipt(place, event, ts);
            }
        }
        for (place, said) in typing {
            if !self.typing.contains_key(&place) {
                self.late_typing(place, said);
            }
        }
    }

    pub(super) fn typing(&mut self, place: TypingPlace, said: Typing) {
        add(&mut self.typing, MOST, place, said);
    }

    /// The same, for a destination that is being waited for.
    pub(super) fn late_typing(&mut self, place: TypingPlace, said: Typing) {
        add(&mut self.typing, MOST_AWAY, place, said);
    }

    pub(super) fn presence(&mut self, user: OwnedUserId, news: PresenceNews) {
        add(&mut self.presence, MOST, user, news);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.receipts.is_empty() && self.typing.is_empty() && self.presence.is_empty()
    }

    /// Whether there is so much that waiting for more would leave some out.
    pub(super) fn is_plenty(&self) -> bool {
        let most = self.receipts.len().max(self.typing.len()).max(self.presence.len());
        most >= MOST / 2
    }

    /// Forgets what is about this moment.
    pub(super) fn drop_momentary(&mut self) {
        self.typing.clear();
        self.drop_presence();
    }

    pub(super) fn drop_presence(&mut self) {
        self.presence.clear();
    }

    /// Forgets what was said of typing so long before `at` that it is worth nothing then.
    pub(super) fn drop_stale(&mut self, at: Instant) {
        self.typing.retain(|_, said| is_worth_telling(*said, at));
    }

    /// Takes up to `limit` EDUs, the most telling first, and says what of them is for [`Fleeting::give_back`].
    pub(super) fn take(&mut self, limit: usize) -> (Vec<Value>, Taken) {
        let (mut edus, mut taken) = (Vec::new(), Taken::default());
        while edus.len() < limit
            && let Some((place, said)) = self.typing.pop_first()
        {
            let ((room, user), (typing, _)) = (&place, said);
            edus.push(edu("m.typing", &json!({ "room_id": room, "user_id": user, "typing": typing })));
            taken.typing.insert(place, said);
        }
        while edus.len() < limit && !self.receipts.is_empty() {
            edus.push(edu("m.receipt", &self.take_receipts(&mut taken.receipts)));
        }
        while edus.len() < limit && !self.presence.is_empty() {
            edus.push(edu("m.presence", &json!({ "push": self.take_presence() })));
        }
        (edus, taken)
    }

    /// One EDU holds one receipt of each user in each room; further threads go into the next.
    fn take_receipts(&mut self, taken: &mut Receipts) -> Value {
        let mut rooms: BTreeMap<OwnedRoomId, Map<String, Value>> = BTreeMap::new();
        let (mut left, mut room_for) = (Receipts::new(), RECEIPTS);
        for (place, (event, ts)) in std::mem::take(&mut self.receipts) {
            let (room, user, thread) = &place;
            let said = rooms.get(room).is_some_and(|users| users.contains_key(user.as_str()));
            if said || room_for == 0 {
                left.insert(place, (event, ts));
                continue;
            }
            let mut data = json!({ "ts": ts });
            if !thread.is_empty() {
                data["thread_id"] = Value::String(thread.clone());
            }
            let receipt = json!({ "data": data, "event_ids": [event] });
            rooms.entry(room.clone()).or_default().insert(user.to_string(), receipt);
            taken.insert(place, (event, ts));
            room_for -= 1;
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
        for typing in [true, false] {
            fleeting.typing((room.clone(), user.clone()), (typing, Instant::now()));
        }
        for event in [owned_event_id!("$1"), owned_event_id!("$2")] {
            fleeting.receipt((room.clone(), user.clone(), String::new()), event, 5);
        }
        fleeting.receipt((room, user, "main".to_owned()), owned_event_id!("$3"), 6);
        let (edus, _) = fleeting.take(10);
        assert_eq!(edus.len(), 3);
        assert_eq!(edus[0]["content"]["typing"], false);
        let read = |edu: &Value| edu["content"]["!r:a"]["m.read"]["@u:a"].clone();
        assert_eq!(read(&edus[1])["event_ids"], json!(["$2"]));
        assert_eq!(read(&edus[2])["data"], json!({ "ts": 6, "thread_id": "main" }));
        assert!(fleeting.is_empty());
    }

    #[test]
    fn receipts_that_were_not_delivered_come_again_unless_there_are_newer_ones() {
        let mut fleeting = Fleeting::default();
        let place = |number: usize| (owned_room_id!("!r:a"), owned_user_id!("@u:a"), format!("$t{number}"));
        for number in 0..3 {
            fleeting.receipt(place(number), owned_event_id!("$old"), 1);
        }
        let (_, taken) = fleeting.take(10);
        assert!(taken.receipts.len() == 3 && fleeting.is_empty());
        fleeting.receipt(place(1), owned_event_id!("$new"), 2);
        fleeting.give_back(taken);
        let (edus, again) = fleeting.take(10);
        assert_eq!((edus.len(), again.receipts.len()), (3, 3));
        assert_eq!(again.receipts[&place(1)].0.as_str(), "$new");
    }

    #[test]
    fn many_receipts_go_in_several_pieces_and_few_are_kept_for_who_is_away() {
        let mut fleeting = Fleeting::default();
        let place = |number: usize| {
            (ruma::RoomId::parse(format!("!r{number}:a")).unwrap(), owned_user_id!("@u:a"), String::new())
        };
        for number in 0..250 {
            fleeting.receipt(place(number), owned_event_id!("$1"), 1);
        }
        let (edus, taken) = fleeting.take(10);
        let rooms = |edu: &Value| edu["content"].as_object().unwrap().len();
        assert_eq!(edus.iter().map(rooms).collect::<Vec<_>>(), [100, 100, 50]);
        fleeting.give_back(taken);
        assert_eq!(fleeting.take(10).1.receipts.len(), 100);
    }

    #[test]
    fn the_oldest_receipt_makes_room_for_a_new_one() {
        let mut fleeting = Fleeting::default();
        let place = |number: u64| (owned_room_id!("!r:a"), owned_user_id!("@u:a"), format!("$t{number}"));
        let most = MOST_AWAY as u64;
        for number in 1..=most + 1 {
            fleeting.late_receipt(place(number), owned_event_id!("$1"), number);
        }
        fleeting.late_receipt(place(0), owned_event_id!("$1"), 0);
        let taken = fleeting.take(2 * MOST_AWAY).1.receipts;
        let times: Vec<u64> = taken.values().map(|(_, ts)| *ts).collect();
        assert_eq!((times.len(), times.iter().min()), (MOST_AWAY, Some(&2)));
        assert!(times.contains(&(most + 1)));
    }

    #[test]
    fn what_is_for_the_moment_is_dropped_and_receipts_stay() {
        let mut fleeting = Fleeting::default();
        fleeting.typing((owned_room_id!("!r:a"), owned_user_id!("@u:a")), (true, Instant::now()));
        let place = (owned_room_id!("!r:a"), owned_user_id!("@u:a"), String::new());
        fleeting.receipt(place, owned_event_id!("$1"), 5);
        fleeting.drop_momentary();
        assert_eq!(fleeting.take(10).0.len(), 1);
    }

    #[test]
    fn typing_that_was_not_delivered_comes_again_for_a_while_unless_there_is_newer_word() {
        let (mut fleeting, said) = (Fleeting::default(), Instant::now());
        let place = |user: &str| (owned_room_id!("!r:a"), OwnedUserId::try_from(user).unwrap());
        let told = |fleeting: &mut Fleeting| {
            let (edus, taken) = fleeting.take(10);
            let told: Vec<bool> = edus.iter().filter_map(|edu| edu["content"]["typing"].as_bool()).collect();
            (told, taken)
        };
        for user in ["@u:a", "@v:a"] {
            fleeting.typing(place(user), (true, said));
        }
        let (_, taken) = told(&mut fleeting);
        fleeting.typing(place("@v:a"), (false, said + Duration::from_secs(5)));
        fleeting.give_back(taken);
        fleeting.drop_stale(said + Duration::from_secs(29));
        let (again, taken) = told(&mut fleeting);
        assert_eq!(again, [true, false]);
        fleeting.give_back(taken);
        fleeting.drop_stale(said + TYPING_LASTS);
        assert_eq!(told(&mut fleeting).0, [false], "who has stopped since");
        for number in 0..=MOST_AWAY {
            fleeting.late_typing(place(&format!("@u{number}:a")), (true, said));
        }
        assert_eq!(told(&mut fleeting).1.typing.len(), 10);
        assert_eq!(fleeting.typing.len(), MOST_AWAY - 10);
    }
}
