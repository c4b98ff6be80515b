//! The power levels of a room that takes over from another one.

use ruma::UserId;
use serde_json::{Map, Value, json};

/// What is asked for where the event does not say (client-server API, `m.room.power_levels`).
const DEFAULTS: [(&str, i64); 7] = [
    ("users_default", 0),
    ("events_default", 0),
    ("state_default", 50),
    ("ban", 50),
    ("kick", 50),
    ("redact", 50),
    ("invite", 0),
];
/// Where levels stand by name.
const MAPS: [&str; 3] = ["users", "events", "notifications"];
/// The highest number that canonical JSON has.
const HIGHEST: i64 = (1 << 53) - 1;
/// What creators get at least where they had power without limit.
const CREATOR: i64 = 100;

/// The power levels that a room begins with, and those that it is left with where they are others.
pub(super) struct Levels {
    pub(super) first: Map<String, Value>,
    pub(super) last: Option<Map<String, Value>>,
}

impl Levels {
    /// Of a room whose creator is above everything.
    pub(super) fn without_limit(kept: Map<String, Value>) -> Self {
        Self { first: kept, last: None }
    }

    /// Of a room whose creator is bound by its levels: until everything is in place, it is high enough for all of it. Who was
    /// `unlimited` in the old room comes to be as high as anybody.
    pub(super) fn within_limits(
        mut kept: Map<String, Value>,
        creator: &UserId,
        unlimited: &[&UserId],
        banned: &[&UserId],
    ) -> Self {
        let top = highest_user(&kept).max(highest_needed(&kept)).max(CREATOR);
        for user in unlimited {
            set(&mut kept, user, top);
        }
        let above_banned = banned.iter().map(|user| of(&kept, user) + 1).max().unwrap_or(0);
        let needed = highest_needed(&kept).max(above_banned).min(HIGHEST);
        let level = needed.max(of(&kept, creator));
        // Nobody is above the highest level: who is banned at it has it back in the end.
        let equals: Vec<&UserId> = banned.iter().copied().filter(|user| of(&kept, user) >= level).collect();
        if level == of(&kept, creator) && equals.is_empty() {
            return Self { first: kept, last: None };
        }
        let mut first = kept.clone();
        set(&mut first, creator, level);
        for user in equals {
            set(&mut first, user, level - 1);
        }
        Self { first, last: Some(kept) }
    }
}

/// Levels as numbers, which is what newer versions ask for; what cannot be read is left to its default.
pub(super) fn tidied(mut levels: Map<String, Value>) -> Map<String, Value> {
    levels.retain(|field, value| {
        if MAPS.contains(&field.as_str()) {
            let Value::Object(entries) = value else { return false };
            entries.retain(|_, value| make_number(value));
            return true;
        }
        let is_level = DEFAULTS.iter().any(|(name, _)| name == field);
        !is_level || make_number(value)
    });
    levels
}

fn make_number(value: &mut Value) -> bool {
    let Some(number) = level(value) else { return false };
    *value = json!(number);
    true
}

/// Levels of old room versions may be texts or truth values.
fn level(value: &Value) -> Option<i64> {
    let level = match value {
        Value::String(text) => chappe_rules::pdu::level(text),
        Value::Bool(truth) => Some(i64::from(*truth)),
        other => other.as_i64(),
    };
    level.filter(|level| (-HIGHEST..=HIGHEST).contains(level))
}

fn named<'a>(levels: &'a Map<String, Value>, map: &str) -> impl Iterator<Item = i64> + use<'a> {
    let entries = levels.get(map).and_then(Value::as_object);
    entries.into_iter().flat_map(Map::values).filter_map(level)
}

/// The highest level that anything in the room asks for.
fn highest_needed(levels: &Map<String, Value>) -> i64 {
    let fields = DEFAULTS
        .iter()
        .filter(|(field, _)| *field != "users_default")
        .map(|(field, default)| levels.get(*field).and_then(level).unwrap_or(*default));
    fields.chain(named(levels, "events")).chain(named(levels, "notifications")).max().unwrap_or(0)
}

fn highest_user(levels: &Map<String, Value>) -> i64 {
    named(levels, "users").max().unwrap_or(0).max(default_of_users(levels))
}

fn default_of_users(levels: &Map<String, Value>) -> i64 {
    levels.get("users_default").and_then(level).unwrap_or(0)
}

/// The level of a user.
fn of(levels: &Map<String, Value>, user: &UserId) -> i64 {
    let own = levels.get("users").and_then(|users| users.get(user.as_str())).and_then(level);
    own.unwrap_or_else(|| default_of_users(levels))
}

fn set(levels: &mut Map<String, Value>, user: &UserId, level: i64) {
    let users = levels.entry("users").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(users) = users {
        users.insert(user.to_string(), json!(level));
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{Map, Value, json};

    use super::{HIGHEST, Levels, tidied};

    fn map(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("an object is needed") };
        map
    }

    #[test]
    fn texts_become_numbers_and_what_cannot_be_read_its_default() {
        let loose = json!({
            "ban": " 60", "kick": "x", "invite": true, "redact": "1_0", "events": [], "own": "y",
            "users": { "@a:x": "9", "@b:x": null, "@c:x": "\u{ff15}\u{ff10}", "@d:x": false },
        });
        let tidy = json!({
            "ban": 60, "invite": 1, "redact": 10, "own": "y", "users": { "@a:x": 9, "@c:x": 50, "@d:x": 0 },
        });
        assert_eq!(tidied(map(loose)), map(tidy));
    }

    #[test]
    fn who_is_high_enough_is_not_raised() {
        let (alice, bob) = (user_id!("@a:x"), user_id!("@b:x"));
        let of = |levels: &Value, banned: bool| {
            let banned = if banned { vec![bob] } else { Vec::new() };
            let levels = Levels::within_limits(map(levels.clone()), alice, &[], &banned);
            (levels.first["users"][alice.as_str()].as_i64().unwrap(), levels.last)
        };
        let levels = json!({ "users": { "@a:x": 60, "@b:x": 90 }, "events": { "x": 60 } });
        assert_eq!(of(&levels, false), (60, None));
        assert_eq!(of(&levels, true), (91, Some(map(levels))));
        let levels = json!({ "users": { "@a:x": 60, "@b:x": HIGHEST } });
        assert_eq!(of(&levels, true), (HIGHEST, Some(map(levels))));
    }

    #[test]
    fn who_is_banned_at_the_highest_level_is_below_it_at_first() {
        let (alice, bob) = (user_id!("@a:x"), user_id!("@b:x"));
        for own in [60, HIGHEST] {
            let levels = map(json!({ "users": { "@a:x": own, "@b:x": HIGHEST } }));
            let Levels { first, last } = Levels::within_limits(levels.clone(), alice, &[], &[bob]);
            assert_eq!(first["users"], json!({ "@a:x": HIGHEST, "@b:x": HIGHEST - 1 }));
            assert_eq!(last, Some(levels));
        }
    }

    #[test]
    fn who_was_unlimited_is_as_high_as_anybody() {
        let alice = user_id!("@a:x");
        let of = |levels: Value| Levels::within_limits(map(levels), alice, &[alice], &[]);
        for (levels, level) in
            [(json!({}), 100), (json!({ "users": { "@b:x": 120 } }), 120), (json!({ "ban": 150 }), 150)]
        {
            let levels = of(levels);
            assert_eq!((&levels.first["users"]["@a:x"], levels.last), (&json!(level), None));
        }
    }
}
