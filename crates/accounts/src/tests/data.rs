//! Account data, push rules, filters, pushers, profiles.

use std::sync::Arc;

use chappe_store::{LogEntry, Position, Tx};
use ruma::{
    UserId,
    api::client::{filter::FilterDefinition, push::Pusher},
    device_id,
    push::{Action, NewPatternedPushRule, NewPushRule, NewSimplePushRule, RuleKind},
    room_id, user_id,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{log_in, server, server_with, user};
use crate::{Accounts, Erase, Error, OtherUsers, Scope};

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).unwrap()
}

async fn log(accounts: &Accounts) -> Vec<LogEntry> {
    let entries = accounts.store().read().log_after(Position(0), 1000).await.unwrap();
    entries.into_iter().map(|entry| entry.what).collect()
}

#[tokio::test]
async fn account_data_is_a_stream_of_last_changes() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let room = Scope::Room(room_id!("!r:hs1"));
    accounts.set_account_data(&alice, Scope::Global, "a", &raw(&json!({ "v": 1 }))).await.unwrap();
    accounts.set_account_data(&alice, room, "a", &raw(&json!({ "v": 2 }))).await.unwrap();
    let between = accounts.store().read().position();
    accounts.set_account_data(&alice, Scope::Global, "a", &raw(&json!({ "v": 3 }))).await.unwrap();

    let reader = accounts.store().read();
    let all = accounts.account_data_since(&reader, &alice, Position(0)).await.unwrap();
    let seen: Vec<_> = all.iter().map(|item| (item.room.is_some(), item.content.get())).collect();
    assert_eq!(seen, [(true, r#"{"v":2}"#), (false, r#"{"v":3}"#)]);
    let new = accounts.account_data_since(&reader, &alice, between).await.unwrap();
    assert_eq!(new.len(), 1);
    assert_eq!(new[0].position, reader.position());
    assert_eq!(accounts.account_data_all(&reader, &alice, room).await.unwrap().len(), 1);
    let globals = accounts.account_data_all(&reader, &alice, Scope::Global).await.unwrap();
    assert_eq!(globals.iter().map(|item| item.kind.as_str()).collect::<Vec<_>>(), ["a", "m.push_rules"]);
    let entry = LogEntry::AccountData { user: alice.clone() };
    assert_eq!(log(&accounts).await.iter().filter(|what| **what == entry).count(), 3);
    let nothing = accounts.account_data(&reader, user_id!("@bob:hs1"), Scope::Global, "a").await.unwrap();
    assert!(nothing.is_none());
}

#[tokio::test]
async fn account_data_has_its_limits() {
    let accounts = server_with(|config| {
        config.limits.account_data_items = 2;
        config.limits.account_data_bytes = 100;
    });
    let alice = user(&accounts, "alice").await;
    let set = async |kind: &str, value: &Value| {
        accounts.set_account_data(&alice, Scope::Global, kind, &raw(value)).await
    };
    assert!(matches!(set("a", &json!({ "v": "x".repeat(100) })).await, Err(Error::TooLarge(_))));
    assert!(matches!(set("a", &json!([])).await, Err(Error::BadJson(_))));
    assert!(matches!(set("m.push_rules", &json!({})).await, Err(Error::Managed)));
    set("a", &json!({ "v": 1 })).await.unwrap();
    set("b", &json!({ "v": 1 })).await.unwrap();
    set("b", &json!({ "again": true })).await.unwrap();
    assert!(matches!(set("c", &json!({ "v": 1 })).await, Err(Error::TooMany(_))));
}

#[tokio::test]
async fn tags_and_ignored_users_are_account_data() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let room = room_id!("!r:hs1");
    accounts
        .update_tags(&alice, room, |tags| {
            tags.insert("m.favourite".to_owned(), json!({ "order": 0.5 }));
        })
        .await
        .unwrap();
    assert_eq!(
        Value::Object(accounts.tags(&alice, room).await.unwrap()),
        json!({ "m.favourite": { "order": 0.5 } })
    );
    let list = json!({ "ignored_users": { "@bob:hs1": {}, "not a user": {} } });
    accounts.set_account_data(&alice, Scope::Global, "m.ignored_user_list", &raw(&list)).await.unwrap();
    let ignored = accounts.ignored_users(&accounts.store().read(), &alice).await.unwrap();
    assert_eq!(ignored.into_iter().collect::<Vec<_>>(), [user_id!("@bob:hs1")]);
}

#[tokio::test]
async fn push_rules_are_edited_and_limited() {
    let accounts = server_with(|config| config.limits.push_rules = 2);
    let alice = user(&accounts, "alice").await;
    let rule = |id: &str, pattern: &str| {
        NewPushRule::Content(NewPatternedPushRule::new(
            id.to_owned(),
            pattern.to_owned(),
            vec![Action::Notify],
        ))
    };
    accounts.set_push_rule(&alice, rule("one", "x"), None, None).await.unwrap();
    accounts.set_push_rule(&alice, rule("two", "y"), Some("one"), None).await.unwrap();
    assert!(matches!(
        accounts.set_push_rule(&alice, rule("three", "z"), None, None).await,
        Err(Error::TooMany(_))
    ));
    let long = "x".repeat(100_000);
    assert!(matches!(
        accounts.set_push_rule(&alice, rule("two", &long), None, None).await,
        Err(Error::TooLarge(_))
    ));
    assert!(matches!(
        accounts.set_push_rule(&alice, rule(".own", "z"), None, None).await,
        Err(Error::Invalid(_))
    ));
    accounts.enable_push_rule(&alice, RuleKind::Override, ".m.rule.master", true).await.unwrap();
    accounts.set_push_actions(&alice, RuleKind::Content, "two", vec![]).await.unwrap();
    let reader = accounts.store().read();
    let rules = accounts.push_rules(&reader, &alice).await.unwrap();
    assert_eq!(rules.content.iter().map(|rule| rule.rule_id.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert!(rules.content[1].actions.is_empty());
    assert!(rules.get(RuleKind::Override, ".m.rule.master").unwrap().enabled());
    assert!(matches!(
        accounts.delete_push_rule(&alice, RuleKind::Override, ".m.rule.master").await,
        Err(Error::Invalid(_))
    ));
    accounts.delete_push_rule(&alice, RuleKind::Content, "one").await.unwrap();
    let outcome = accounts.delete_push_rule(&alice, RuleKind::Content, "one").await;
    assert!(matches!(outcome, Err(Error::NotFound(_))));
    let reader = accounts.store().read();
    let items = accounts.account_data_since(&reader, &alice, Position(0)).await.unwrap();
    assert!(items.len() == 1 && items[0].content.get().starts_with(r#"{"global":{"#));
}

#[tokio::test]
async fn a_push_rule_is_moved_to_where_it_is_said_to_stand() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let set = async |id: &str, after: Option<&str>, before: Option<&str>| {
        let sender = UserId::parse(format!("@{id}:hs1")).unwrap();
        let rule = NewPushRule::Sender(NewSimplePushRule::new(sender, vec![Action::Notify]));
        let named = |id: &str| format!("@{id}:hs1");
        let (after, before) = (after.map(named), before.map(named));
        accounts.set_push_rule(&alice, rule, after.as_deref(), before.as_deref()).await
    };
    let order = async || {
        let rules = accounts.push_rules(&accounts.store().read(), &alice).await.unwrap();
        rules.sender.iter().map(|rule| rule.rule_id.localpart()).collect::<String>()
    };
    for id in ["c", "b", "a"] {
        set(id, None, None).await.unwrap();
    }
    accounts.enable_push_rule(&alice, RuleKind::Sender, "@a:hs1", false).await.unwrap();
    for (id, after, before, wanted) in [
        ("a", None, Some("c"), "bac"),
        ("a", Some("c"), None, "bca"),
        ("c", Some("a"), None, "bac"),
        ("c", None, Some("b"), "cba"),
        ("a", Some("c"), Some("b"), "cab"),
        ("a", None, None, "cab"),
    ] {
        set(id, after, before).await.unwrap();
        assert_eq!(order().await, wanted, "{id} after {after:?} before {before:?}");
    }
    let rules = accounts.push_rules(&accounts.store().read(), &alice).await.unwrap();
    assert!(!rules.get(RuleKind::Sender, "@a:hs1").unwrap().enabled(), "as it was before it moved");
    for (after, before) in [(Some("x"), None), (None, Some("x")), (Some("b"), Some("c"))] {
        assert!(matches!(set("a", after, before).await, Err(Error::Invalid(_))));
    }
    for id in ["a", "new"] {
        for (after, before) in [(Some(id), None), (None, Some(id)), (Some("c"), Some(id))] {
            assert!(matches!(set(id, after, before).await, Err(Error::Invalid(_))), "{id} beside itself");
        }
    }
    assert_eq!(order().await, "cab");
}

#[tokio::test]
async fn push_rules_of_which_one_cannot_be_read_any_more_are_the_others() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let rule = |id: &str, condition: Value| {
        json!({
            "rule_id": id, "default": false, "enabled": true, "conditions": [condition],
            "actions": ["notify", { "set_tweak": "sound", "value": "default" }],
        })
    };
    // Whoever wrote this knew no condition of this kind.
    let old = rule("old", json!({ "kind": "io.element.msc4306.thread_subscription" }));
    let own = rule("own", json!({ "kind": "com.example.unknown", "x": 1 }));
    let room = json!({ "rule_id": "!r:hs1", "default": false, "enabled": true, "actions": [] });
    let rules = json!({ "override": [old, own], "underride": [own, old], "room": [room] });
    let content = json!({ "global": rules }).to_string();
    let (reader, mut tx) = (accounts.store().read(), Tx::new());
    let scope = Scope::Global;
    accounts.draft_account_data(&reader, &mut tx, &alice, scope, "m.push_rules", &content).await.unwrap();
    accounts.store().commit(tx).await.unwrap();
    accounts.enable_push_rule(&alice, RuleKind::Override, "own", false).await.unwrap();
    let rules = accounts.push_rules(&accounts.store().read(), &alice).await.unwrap();
    let enabled = |kind: RuleKind, id: &str| Some(rules.get(kind, id)?.enabled());
    assert_eq!(enabled(RuleKind::Override, "own"), Some(false));
    assert_eq!(enabled(RuleKind::Underride, "own"), Some(true));
    assert_eq!(enabled(RuleKind::Room, "!r:hs1"), Some(true));
    for kind in [RuleKind::Override, RuleKind::Underride] {
        assert_eq!(enabled(kind, "old"), None);
    }
}

#[tokio::test]
async fn threads_have_push_rules_where_the_server_says_so() {
    const FOLLOWED: &str = ".io.element.msc4306.rule.subscribed_thread";
    let about_threads = async |accounts: &Accounts, user: &UserId| {
        accounts.push_rules(&accounts.store().read(), user).await.unwrap().postcontent
    };
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    assert!(about_threads(&accounts, &alice).await.is_empty());
    let accounts = server_with(|config| config.thread_subscriptions = true);
    let alice = user(&accounts, "alice").await;
    accounts.enable_push_rule(&alice, RuleKind::PostContent, FOLLOWED, false).await.unwrap();
    accounts.set_push_actions(&alice, RuleKind::PostContent, FOLLOWED, vec![]).await.unwrap();
    let rules = about_threads(&accounts, &alice).await;
    assert_eq!(rules.iter().map(|rule| rule.enabled).collect::<Vec<_>>(), [true, false]);
    assert!(rules[1].rule_id == FOLLOWED && rules[1].actions.is_empty());
    let long = vec![Action::Notify; 2_000];
    let outcome = accounts.set_push_actions(&alice, RuleKind::PostContent, FOLLOWED, long).await;
    assert!(matches!(outcome, Err(Error::TooLarge(_))));
    let outcome = accounts.delete_push_rule(&alice, RuleKind::PostContent, FOLLOWED).await;
    assert!(matches!(outcome, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_filter_keeps_its_id() {
    let accounts = server_with(|config| config.limits.filters = 2);
    let alice = user(&accounts, "alice").await;
    let filter =
        |limit: u32| serde_json::from_value(json!({ "room": { "timeline": { "limit": limit } } })).unwrap();
    let id = accounts.store_filter(&alice, &filter(1)).await.unwrap();
    assert_eq!(accounts.store_filter(&alice, &filter(1)).await.unwrap(), id);
    accounts.store_filter(&alice, &filter(2)).await.unwrap();
    assert!(matches!(accounts.store_filter(&alice, &filter(3)).await, Err(Error::TooMany(_))));
    for _ in 0..2 {
        let found = accounts.filter(&alice, &id).await.unwrap().unwrap();
        assert_eq!(found.room.timeline.limit, Some(1_u32.into()));
    }
    assert!(accounts.filter(user_id!("@bob:hs1"), &id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_filter_that_many_use_is_in_memory_once() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    let filter = |limit: u32| -> FilterDefinition {
        serde_json::from_value(json!({ "room": { "timeline": { "limit": limit } } })).unwrap()
    };
    let mut found = vec![accounts.shared_filter(filter(1)), accounts.shared_filter(filter(1))];
    for user in [&alice, &bob] {
        let id = accounts.store_filter(user, &filter(1)).await.unwrap();
        for _ in 0..2 {
            found.push(accounts.filter(user, &id).await.unwrap().unwrap());
        }
    }
    assert!(found.iter().all(|one| Arc::ptr_eq(one, &found[0])));
    for (filter, limit) in [(&found[0], 1_u32), (&accounts.shared_filter(filter(2)), 2)] {
        assert_eq!(filter.room.timeline.limit, Some(limit.into()));
    }
}

fn pusher(key: &str, url: &str) -> Pusher {
    serde_json::from_value(json!({
        "pushkey": key, "app_id": "app", "kind": "http", "app_display_name": "App", "device_display_name": "D",
        "lang": "fr", "data": { "url": url },
    }))
    .unwrap()
}

#[tokio::test]
async fn a_pusher_follows_its_device() {
    const URL: &str = "https://push.example.org/_matrix/push/v1/notify";
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    log_in(&accounts, &alice, "ONE").await;
    log_in(&accounts, &bob, "BOB").await;
    let (one, other) = (Some(device_id!("ONE")), OtherUsers::Replace);
    for bad in ["https://push.example.org/other", "file:///_matrix/push/v1/notify", "x"] {
        let outcome = accounts.set_pusher(&alice, one, &pusher("k", bad), other).await;
        assert!(matches!(outcome, Err(Error::Invalid(_))), "{bad}");
    }
    for kind in ["email", "org.example.carrier_pigeon"] {
        let mut unserved = serde_json::to_value(pusher("alice@x.fr", URL)).unwrap();
        unserved["kind"] = json!(kind);
        let unserved: Pusher = serde_json::from_value(unserved).unwrap();
        let outcome = accounts.set_pusher(&alice, one, &unserved, other).await;
        assert!(matches!(outcome, Err(Error::Invalid(_))), "{kind}");
    }
    accounts.set_pusher(&alice, one, &pusher("k", URL), other).await.unwrap();
    accounts.set_pusher(&alice, None, &pusher("k2", URL), other).await.unwrap();
    let count = async |user| accounts.pushers(&accounts.store().read(), user).await.unwrap().len();
    assert_eq!(count(&alice).await, 2);
    accounts.set_pusher(&bob, Some(device_id!("BOB")), &pusher("k", URL), other).await.unwrap();
    assert_eq!((count(&alice).await, count(&bob).await), (1, 1));
    accounts.set_pusher(&alice, one, &pusher("k", URL), OtherUsers::Keep).await.unwrap();
    assert_eq!((count(&alice).await, count(&bob).await), (2, 1));
    let mut users = accounts.users_with_pushers(None, 1).await.unwrap();
    users.extend(accounts.users_with_pushers(users.last().map(|user| &**user), 5).await.unwrap());
    users.dedup();
    assert_eq!(users, [alice.clone(), bob.clone()]);
    accounts.log_out(&alice, device_id!("ONE")).await.unwrap();
    assert_eq!(count(&alice).await, 1);
    accounts.delete_pusher(&alice, &pusher("k2", URL).ids).await.unwrap();
    assert_eq!(count(&alice).await, 0);
}

#[tokio::test]
async fn a_profile_has_fields_and_a_size() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let set = async |field: &str, value: Value| accounts.set_profile_field(&alice, field, Some(&value)).await;
    set("displayname", json!("Alice")).await.unwrap();
    set("avatar_url", json!("mxc://hs1/a")).await.unwrap();
    set("org.example.team", json!({ "name": "x" })).await.unwrap();
    assert!(matches!(set("displayname", json!(1)).await, Err(Error::Invalid(_))));
    assert!(matches!(set("Bad Name", json!(1)).await, Err(Error::Invalid(_))));
    assert!(matches!(set(&"x".repeat(256), json!(1)).await, Err(Error::FieldNameTooLarge)));
    assert!(matches!(set("large", json!("x".repeat(65_536))).await, Err(Error::ProfileTooLarge)));
    let profile = accounts.profile(&accounts.store().read(), &alice).await.unwrap();
    assert_eq!((profile.displayname(), profile.avatar_url()), (Some("Alice"), Some("mxc://hs1/a")));
    assert_eq!(profile.fields.len(), 3);
    set("avatar_url", json!("")).await.unwrap();
    accounts.set_profile_field(&alice, "displayname", None).await.unwrap();
    let profile = accounts.profile(&accounts.store().read(), &alice).await.unwrap();
    assert_eq!(profile.fields.len(), 1);
    let entry = LogEntry::Profile { user: alice.clone() };
    assert_eq!(log(&accounts).await.iter().filter(|what| **what == entry).count(), 6, "a new account too");
    assert!(accounts.profile(&accounts.store().read(), user_id!("@nobody:hs1")).await.is_err());
    accounts.deactivate(&alice, Erase::Yes).await.unwrap();
    assert!(accounts.profile(&accounts.store().read(), &alice).await.unwrap().fields.is_empty());
}

#[tokio::test]
async fn null_is_a_value_of_a_profile_field() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let set = async |field: &str| accounts.set_profile_field(&alice, field, Some(&Value::Null)).await;
    set("org.example.none").await.unwrap();
    let fields = async || accounts.profile(&accounts.store().read(), &alice).await.unwrap().fields;
    assert_eq!(fields().await.get("org.example.none"), Some(&Value::Null));
    for text in ["displayname", "avatar_url", "m.tz"] {
        assert!(matches!(set(text).await, Err(Error::Invalid(_))), "{text}");
    }
    accounts.set_profile_field(&alice, "org.example.none", None).await.unwrap();
    assert!(!fields().await.contains_key("org.example.none"));
}

#[tokio::test]
async fn deleted_account_data_is_told_of_and_gone() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let room = Scope::Room(room_id!("!r:hs1"));
    for scope in [Scope::Global, room] {
        accounts.set_account_data(&alice, scope, "a", &raw(&json!({ "v": 1 }))).await.unwrap();
    }
    let before = accounts.store().read().position();
    accounts.delete_account_data(&alice, Scope::Global, "a").await.unwrap();
    accounts.set_account_data(&alice, room, "a", &raw(&json!({}))).await.unwrap();
    let after = accounts.store().read().position();
    accounts.delete_account_data(&alice, Scope::Global, "a").await.unwrap();
    accounts.delete_account_data(&alice, Scope::Global, "never there").await.unwrap();
    let reader = accounts.store().read();
    assert_eq!(reader.position(), after, "what is not there is not deleted");
    for scope in [Scope::Global, room] {
        assert!(accounts.account_data(&reader, &alice, scope, "a").await.unwrap().is_none());
        let all = accounts.account_data_all(&reader, &alice, scope).await.unwrap();
        assert!(all.iter().all(|item| item.kind != "a"));
    }
    let told = accounts.account_data_since(&reader, &alice, before).await.unwrap();
    assert_eq!(told.iter().map(|item| item.content.get()).collect::<Vec<_>>(), ["{}", "{}"]);
    assert!(accounts.account_data_since(&reader, &alice, Position(0)).await.unwrap().is_empty());
    assert!(accounts.delete_account_data(&alice, Scope::Global, "m.push_rules").await.is_err());
    accounts.set_account_data(&alice, Scope::Global, "a", &raw(&json!({ "v": 2 }))).await.unwrap();
    let reader = accounts.store().read();
    assert!(accounts.account_data(&reader, &alice, Scope::Global, "a").await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_set_to_nothing_is_told_of_even_if_nothing_was_there() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    for scope in [Scope::Global, Scope::Room(room_id!("!r:hs1"))] {
        // Never there, then deleted already.
        for _ in 0..2 {
            let before = accounts.store().read().position();
            accounts.set_account_data(&alice, scope, "a", &raw(&json!({}))).await.unwrap();
            let reader = accounts.store().read();
            let told = accounts.account_data_since(&reader, &alice, before).await.unwrap();
            let told: Vec<_> = told.iter().map(|item| (item.kind.as_str(), item.content.get())).collect();
            assert_eq!(told, [("a", "{}")]);
            assert!(accounts.account_data(&reader, &alice, scope, "a").await.unwrap().is_none());
            let first = accounts.account_data_since(&reader, &alice, Position(0)).await.unwrap();
            assert!(first.is_empty(), "who begins is not told");
        }
    }
}

#[tokio::test]
async fn settings_of_a_device_end_with_it() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    for prefix in ["m", "org.matrix.msc3890"] {
        let kind = format!("{prefix}.local_notification_settings.ONE");
        let silenced = raw(&json!({ "is_silenced": true }));
        accounts.set_account_data(&alice, Scope::Global, &kind, &silenced).await.unwrap();
    }
    accounts.delete_devices(&alice, &["ONE".into()]).await.unwrap();
    let reader = accounts.store().read();
    let left = accounts.account_data_all(&reader, &alice, Scope::Global).await.unwrap();
    assert_eq!(left.iter().map(|item| item.kind.as_str()).collect::<Vec<_>>(), ["m.push_rules"]);
}
