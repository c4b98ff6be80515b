//! How long what is said in a room is kept (MSC1763): what the room says, what the server lets it say, what comes of both.

use ruma::CanonicalJsonValue;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Times of other servers are believed that are so far ahead of the clock.
const SKEW_MS: u64 = 60 * 1_000;

/// What a room says in `m.room.retention`, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// After so long what was said goes.
    pub max: Option<u64>,
    /// Before that it stays.
    pub min: Option<u64>,
}

impl Retention {
    /// What the content of the state event says; nothing where it is not well-formed.
    pub fn of(content: &RawValue) -> Self {
        let Ok(CanonicalJsonValue::Object(content)) = serde_json::from_str(content.get()) else {
            return Self::default();
        };
        let lifetime = |field: &str| match content.get(field) {
            None | Some(CanonicalJsonValue::Null) => Some(None),
            Some(CanonicalJsonValue::Integer(ms)) => u64::try_from(i64::from(*ms)).ok().map(Some),
            Some(_) => None,
        };
        let (Some(max), Some(min)) = (lifetime("max_lifetime"), lifetime("min_lifetime")) else {
            return Self::default();
        };
        let is_empty = max.zip(min).is_some_and(|(max, min)| max < min);
        if is_empty { Self::default() } else { Self { max, min } }
    }
}

/// The section `[rooms.retention]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Days for which rooms keep what is said that say nothing of it; 0: for ever.
    pub default_days: u32,
    /// Days for which every room keeps it, whatever it says.
    pub minimum_days: u32,
    /// Days for which no room keeps it longer, whatever it says; 0: no such limit.
    pub maximum_days: u32,
}

impl Policy {
    /// For how many milliseconds a room keeps what is said in it; none: for ever.
    pub fn lifetime(&self, said: Retention) -> Option<u64> {
        let some = |days: u32| Some(u64::from(days) * DAY_MS).filter(|ms| *ms > 0);
        let wanted = said.max.or(some(self.default_days)).map(|max| max.max(said.min.unwrap_or(0)));
        let kept = wanted.map(|max| max.max(u64::from(self.minimum_days) * DAY_MS));
        match some(self.maximum_days) {
            Some(most) => Some(kept.map_or(most, |kept| kept.min(most))),
            None => kept,
        }
    }
}

/// Whether an event claims to be of a time that has not come yet.
pub fn is_ahead(claimed: u64, now: u64) -> bool {
    claimed > now.saturating_add(SKEW_MS)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::{DAY_MS, Policy, Retention, is_ahead};

    fn said(content: &serde_json::Value) -> Retention {
        Retention::of(&to_raw_value(content).unwrap())
    }

    #[test]
    fn what_a_room_says_is_read_as_a_whole_or_not_at_all() {
        for (content, max, min) in [
            (json!({}), None, None),
            (json!({ "max_lifetime": 5 }), Some(5), None),
            (json!({ "max_lifetime": 5, "min_lifetime": 5 }), Some(5), Some(5)),
            (json!({ "max_lifetime": null, "min_lifetime": 3 }), None, Some(3)),
            (json!({ "max_lifetime": 0 }), Some(0), None),
            (json!({ "max_lifetime": 5, "min_lifetime": 6 }), None, None),
            (json!({ "max_lifetime": -1 }), None, None),
            (json!({ "max_lifetime": "5" }), None, None),
            (json!({ "max_lifetime": 5, "min_lifetime": [] }), None, None),
            (json!({ "max_lifetime": 5.5 }), None, None),
            (json!([]), None, None),
        ] {
            assert_eq!(said(&content), Retention { max, min }, "{content}");
        }
    }

    #[test]
    fn a_lifetime_stays_between_what_the_server_allows() {
        let days =
            |default_days, minimum_days, maximum_days| Policy { default_days, minimum_days, maximum_days };
        let room = |max: Option<u64>, min: Option<u64>| Retention {
            max: max.map(|days| days * DAY_MS),
            min: min.map(|days| days * DAY_MS),
        };
        for (policy, room, kept) in [
            (days(0, 0, 0), room(None, None), None),
            (days(0, 0, 0), room(Some(3), None), Some(3)),
            (days(365, 1, 365), room(None, None), Some(365)),
            (days(365, 1, 365), room(Some(0), None), Some(1)),
            (days(365, 1, 365), room(Some(30), None), Some(30)),
            (days(365, 1, 365), room(Some(400), None), Some(365)),
            (days(30, 1, 365), room(None, Some(90)), Some(90)),
            (days(30, 1, 60), room(None, Some(90)), Some(60)),
            (days(0, 1, 0), room(None, Some(90)), None),
            (days(0, 1, 365), room(None, None), Some(365)),
        ] {
            assert_eq!(policy.lifetime(room), kept.map(|days| days * DAY_MS), "{policy:?} {room:?}");
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        assert!(!is_ahead(60_000, 0));
        assert!(is_ahead(60_001, 0));
        assert!(!is_ahead(u64::MAX, u64::MAX));
    }
}
