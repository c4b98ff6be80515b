//! What push rules make of events.

use ruma::{UserId, push::Ruleset, room_version_rules::RoomVersionRules, user_id};
use serde_json::json;

use super::{
    ActiveRules, Additions, Arc, Attention, ENCRYPTED_EVENT, Setting, Subject, defaults, defaults_with,
    evaluate, without_user,
};
use crate::{Pdu, laws::Room};

fn active(rules: &Ruleset) -> ActiveRules {
    ActiveRules::new(rules.clone(), Arc::new)
}

fn heard(rules: &Ruleset, room: &Room, joined: u64, said: &Pdu) -> Attention {
    let power = room.power();
    let setting = Setting {
        room_id: said.room_id(),
        joined,
        power: Some(&power),
        user: user_id!("@bob:b.example"),
        display_name: "Bob B",
        follows: None,
    };
    evaluate(&active(rules), &Subject::new(said), &setting)
}

#[test]
fn default_rules() {
    let rules = defaults(user_id!("@bob:b.example"));
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    let plain = room.say("@a:a.example", "hello");
    assert_eq!(heard(&rules, &room, 3, &plain), Attention { notify: true, ..Attention::default() });
    assert!(heard(&rules, &room, 2, &plain).sound.is_some());
    let own = room.say("@bob:b.example", "hello");
    assert_eq!(heard(&rules, &room, 2, &own), Attention::default());
    let mention = |sender: &str, room: &mut Room| {
        room.message(sender, json!({"body": "x", "m.mentions": {"room": true}}))
    };
    let everybody = mention("@a:a.example", &mut room);
    assert!(heard(&rules, &room, 3, &everybody).highlight);
    let stranger = mention("@x:x.example", &mut room);
    assert!(!heard(&rules, &room, 3, &stranger).highlight);
    let member = room.member("@a:a.example", "@c:c.example", "leave");
    assert!(!heard(&rules, &room, 3, &member).notify);
}

#[test]
fn mentions_replace_guessing() {
    let rules = defaults(user_id!("@bob:b.example"));
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    let other = room.message("@a:a.example", json!({"body": "bob", "m.mentions": {}}));
    assert!(!heard(&rules, &room, 3, &other).highlight);
    let mention =
        room.message("@a:a.example", json!({"body": "x", "m.mentions": {"user_ids": ["@bob:b.example"]}}));
    assert!(heard(&rules, &room, 3, &mention).highlight);
}

#[test]
fn a_server_may_guess_who_is_mentioned() {
    let rules = defaults_with(
        user_id!("@bob:b.example"),
        Additions { guessed_mentions: true, ..Additions::default() },
    );
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    for (body, mentions, highlight) in [
        ("hello bob", None, true),
        ("hello Bob B.", None, true),
        ("hello bobby", None, false),
        ("@room: hello", None, true),
        ("hello bob", Some(json!({})), false),
    ] {
        let mut content = json!({ "body": body });
        if let Some(mentions) = mentions {
            content["m.mentions"] = mentions;
        }
        let said = room.message("@a:a.example", content);
        assert_eq!(heard(&rules, &room, 3, &said).highlight, highlight, "{body}");
        assert!(!heard(&defaults(user_id!("@bob:b.example")), &room, 3, &said).highlight);
    }
    let order: Vec<&str> = rules.override_.iter().map(|rule| rule.rule_id.as_str()).collect();
    let at = |id: &str| order.iter().position(|found| *found == id).unwrap();
    assert!(at(".m.rule.is_user_mention") < at(".m.rule.contains_display_name"));
    assert!(at(".m.rule.contains_display_name") < at(".m.rule.is_room_mention"));
    assert!(at(".m.rule.roomnotif") < at(".m.rule.reaction"));
}

#[test]
fn a_server_may_push_everything_encrypted() {
    let user = user_id!("@bob:b.example");
    let additions = Additions { encrypted_events: true, ..Additions::default() };
    let rules = defaults_with(user, additions);
    assert_eq!(rules.override_[0].rule_id, ".m.rule.master");
    assert_eq!(rules.override_[1].rule_id, ENCRYPTED_EVENT);
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    let said = room.send("@a:a.example", "m.room.encrypted", None, &json!({ "ciphertext": "x" }));
    let only_mentions: Ruleset = serde_json::from_value(
        json!({ "room": [{ "rule_id": said.room_id(), "actions": [], "default": false, "enabled": true }] }),
    )
    .unwrap();
    for (additions, heard_of) in [(additions, true), (Additions::default(), false)] {
        let mut rules = only_mentions.clone();
        rules.update_with_server_default(defaults_with(user, additions));
        assert_eq!(heard(&rules, &room, 3, &said).notify, heard_of);
    }
}

#[test]
fn rules_of_the_user() {
    let rule = |id: &str, condition: serde_json::Value| json!({"rule_id": id, "default": false, "enabled": true, "actions": ["notify"], "conditions": [condition]});
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    let mut notifies = |condition: serde_json::Value, body: &str| {
        let rules: Ruleset = serde_json::from_value(json!({"override": [rule("x", condition)]})).unwrap();
        let said = room.say("@a:a.example", body);
        heard(&rules, &room, 3, &said).notify
    };
    assert!(notifies(json!({"kind": "contains_display_name"}), "hello bob b!"));
    assert!(!notifies(json!({"kind": "contains_display_name"}), "hello bob"));
    assert!(notifies(json!({"kind": "event_match", "key": "type", "pattern": "m.room.mess*"}), ""));
    assert!(notifies(json!({"kind": "room_member_count", "is": ">2"}), ""));
    assert!(!notifies(json!({"kind": "room_member_count", "is": "<3"}), ""));
    assert!(notifies(json!({"kind": "event_property_is", "key": "content.msgtype", "value": "m.text"}), ""));
    assert!(!notifies(json!({"kind": "unheard_of"}), ""));
}

#[test]
fn threads_that_are_followed() {
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    let said = Subject::new(&room.say("@a:a.example", "hello"));
    let power = room.power();
    let heard = |subscribed: bool, follows: Option<bool>| {
        let rule = json!({"rule_id": "x", "default": false, "enabled": true, "actions": ["notify"],
            "conditions": [{"kind": "io.element.msc4306.thread_subscription", "subscribed": subscribed}]});
        let rules: Ruleset = serde_json::from_value(json!({"override": [rule]})).unwrap();
        let setting = Setting {
            room_id: ruma::room_id!("!r:a.example"),
            joined: 2,
            power: Some(&power),
            user: user_id!("@bob:b.example"),
            display_name: "",
            follows,
        };
        evaluate(&active(&rules), &said, &setting).notify
    };
    assert!(heard(true, Some(true)) && heard(false, Some(false)));
    assert!(!heard(true, Some(false)) && !heard(false, Some(true)));
    assert!(!heard(true, None) && !heard(false, None), "in no thread");
}

#[test]
fn a_server_may_leave_threads_to_those_who_follow_them() {
    let user = user_id!("@bob:b.example");
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    let said = Subject::new(&room.say("@a:a.example", "hello"));
    let mentions = json!({ "body": "hello", "m.mentions": { "user_ids": [user] } });
    let mention = Subject::new(&room.message("@a:a.example", mentions));
    let power = room.power();
    let heard = |followed_threads: bool, subject: &Subject, follows: Option<bool>| {
        let rules = defaults_with(user, Additions { followed_threads, ..Additions::default() });
        let setting = Setting {
            room_id: ruma::room_id!("!r:a.example"),
            joined: 3,
            power: Some(&power),
            user,
            display_name: "",
            follows,
        };
        evaluate(&active(&rules), subject, &setting)
    };
    assert!(heard(true, &said, Some(true)).sound.is_some());
    assert_eq!(heard(true, &said, Some(false)), Attention::default());
    assert!(heard(true, &mention, Some(false)).highlight);
    for (followed_threads, follows) in [(true, None), (false, Some(true)), (false, Some(false))] {
        let plain = Attention { notify: true, ..Attention::default() };
        assert_eq!(heard(followed_threads, &said, follows), plain, "{followed_threads} {follows:?}");
    }
}

#[test]
fn muted_rooms_stay_silent() {
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    let said = room.say("@a:a.example", "hello");
    let muted =
        json!({"room": [{"rule_id": said.room_id(), "default": false, "enabled": true, "actions": []}]});
    let rules: Ruleset = serde_json::from_value(muted).unwrap();
    assert_eq!(heard(&rules, &room, 2, &said), Attention::default());
}

#[test]
fn hostile_rules_end() {
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    let said = room.say("@a:a.example", &"a".repeat(50_000));
    let rule = |n: usize, pattern: String| json!({"rule_id": n.to_string(), "default": false, "enabled": true, "actions": ["notify"], "pattern": pattern});
    let long = json!({"content": [rule(1, "*a".repeat(100_000) + "b"), rule(2, "*a".repeat(100) + "b")]});
    let rules: Ruleset = serde_json::from_value(long).unwrap();
    assert_eq!(heard(&rules, &room, 2, &said), Attention::default());
}

#[test]
fn whoever_changed_nothing_has_the_same_rules() {
    let additions = Additions { guessed_mentions: true, ..Additions::default() };
    let alike = |user: &UserId| without_user(defaults_with(user, additions), user);
    let (rules, carols) = (alike(user_id!("@bob:b.example")), alike(user_id!("@carol:c.example")));
    assert_eq!(serde_json::to_string(&rules).unwrap(), serde_json::to_string(&carols).unwrap());
    let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
    for (content, highlight) in [
        (json!({ "body": "x", "m.mentions": { "user_ids": ["@bob:b.example"] } }), true),
        (json!({ "body": "x", "m.mentions": { "user_ids": ["@carol:c.example"] } }), false),
        (json!({ "body": "hello bob" }), true),
        (json!({ "body": "hello carol" }), false),
    ] {
        let said = room.message("@a:a.example", content);
        assert_eq!(heard(&rules, &room, 3, &said).highlight, highlight, "{:?}", said.content());
    }
    for (whom, notify) in [("@bob:b.example", true), ("@carol:c.example", false)] {
        let invite = room.member("@a:a.example", whom, "invite");
        assert_eq!(heard(&rules, &room, 3, &invite).notify, notify, "{whom}");
    }
}
