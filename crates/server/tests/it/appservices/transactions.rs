//! What a service is told: everything that concerns it, once, in order, and nothing else.

use http::StatusCode;
use serde_json::{Value, json};

use super::bridge::{AS_TOKEN, Port, WHOLE, events};

const GHOST: &str = "?user_id=@_irc_ann:a.test";

/// A room of Alice's that the service's user is in.
async fn bridged(port: &Port, alice: &str) -> String {
    port.ghost("_irc_ann").await;
    let room = port.room(alice, json!({ "preset": "public_chat" })).await;
    port.ok(AS_TOKEN, "POST", &format!("/join/{room}{GHOST}"), json!({})).await;
    room
}

#[tokio::test]
async fn a_service_is_told_what_happens_where_its_users_are_and_nowhere_else() {
    let mut port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let elsewhere = port.room(&alice, json!({})).await;
    let room = bridged(&port, &alice).await;
    let hidden = port.say(&alice, &elsewhere, "hidden").await;
    let said: Vec<String> = {
        let mut said = Vec::new();
        for text in ["one", "two", "three"] {
            said.push(port.say(&alice, &room, text).await);
        }
        said
    };
    port.ok(AS_TOKEN, "POST", &format!("/rooms/{room}/leave{GHOST}"), json!({})).await;
    let after = port.say(&alice, &room, "after").await;
    let marker = port.room(&alice, json!({ "preset": "public_chat" })).await;
    port.ok(AS_TOKEN, "POST", &format!("/join/{marker}{GHOST}"), json!({})).await;
    let last = port.say(&alice, &marker, "last").await;
    let (mut told, mut transactions): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    while told.last().is_none_or(|event| event["event_id"] != json!(last)) {
        let asked = port.bridge.next().await;
        let Some(id) = asked.transaction() else { continue };
        transactions.push(id.to_owned());
        told.extend(events(&asked.body).iter().cloned());
    }
    let of_room: Vec<&Value> = told.iter().filter(|event| event["room_id"] == json!(room)).collect();
    let membership = |event: &Value| event["content"]["membership"].as_str().map(str::to_owned);
    assert_eq!(membership(of_room[0]).as_deref(), Some("join"), "it begins with the join");
    let ids: Vec<&str> = of_room[1..4].iter().map(|event| event["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids, said, "in order, each once");
    assert_eq!(membership(of_room[4]).as_deref(), Some("leave"), "it ends with the leave");
    assert_eq!(of_room.len(), 5);
    assert!(of_room[1]["unsigned"]["age"].is_u64() && of_room[1]["sender"] == "@alice:a.test");
    let names: Vec<&Value> = told.iter().map(|event| &event["event_id"]).collect();
    for kept in [hidden, after] {
        assert!(!names.contains(&&json!(kept)));
    }
    let before = transactions.len();
    transactions.dedup();
    assert_eq!(transactions.len(), before, "each transaction has an id of its own");
}

#[tokio::test]
async fn what_was_not_taken_is_sent_again_word_for_word() {
    let mut port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let room = bridged(&port, &alice).await;
    let first = port.say(&alice, &room, "first").await;
    port.bridge.told_of(&first).await;
    port.bridge.then_say("/_matrix/app/v1/transactions", StatusCode::INTERNAL_SERVER_ERROR, json!({}));
    port.bridge.then_say("/_matrix/app/v1/transactions", StatusCode::BAD_GATEWAY, json!({}));
    let second = port.say(&alice, &room, "second").await;
    let once = port.bridge.told_of(&second).await;
    let third = port.say(&alice, &room, "third").await;
    let path = format!("/rooms/{room}/redact/{second}/r");
    port.ok(&alice, "PUT", &path, json!({})).await;
    for _ in 0..2 {
        let again = port.bridge.next().await;
        assert_eq!((&again.path, &again.text), (&once.path, &once.text));
    }
    let next = port.bridge.told_of(&third).await;
    assert_ne!(next.path, once.path);
}

#[tokio::test]
async fn the_old_path_is_tried_where_the_new_one_is_unknown() {
    let mut port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let room = bridged(&port, &alice).await;
    let first = port.say(&alice, &room, "first").await;
    port.bridge.told_of(&first).await;
    let unknown = json!({ "errcode": "M_UNRECOGNIZED" });
    port.bridge.then_say("/_matrix/app/v1/transactions", StatusCode::NOT_FOUND, unknown);
    port.say(&alice, &room, "second").await;
    let new = port.bridge.next().await;
    let old = port.bridge.next().await;
    let id = new.transaction().unwrap();
    assert_eq!((old.path, old.text), (format!("/transactions/{id}"), new.text.clone()));
}

#[tokio::test]
async fn a_transaction_survives_a_restart_and_nothing_is_lost_or_told_twice() {
    let mut port = Port::open(WHOLE, "[process]\nshutdown_seconds = 5\n").await;
    let alice = port.person("alice").await;
    let room = bridged(&port, &alice).await;
    let first = port.say(&alice, &room, "first").await;
    port.bridge.told_of(&first).await;
    for _ in 0..200 {
        port.bridge.then_say("/_matrix/app/v1/transactions", StatusCode::SERVICE_UNAVAILABLE, json!({}));
    }
    let second = port.say(&alice, &room, "second").await;
    let tried = port.bridge.told_of(&second).await;
    let third = port.say(&alice, &room, "third").await;
    port.stop().await;
    port.bridge.forgive();
    port.start().await;
    // Whatever was tried before the stop is still to be heard.
    let again = loop {
        let asked = port.bridge.next().await;
        let is_third = events(&asked.body).iter().any(|event| event["event_id"] == json!(third));
        assert!(!is_third, "the third comes after the second was taken");
        assert_eq!((&asked.path, &asked.text), (&tried.path, &tried.text));
        if port.bridge.took_it() {
            break asked;
        }
    };
    assert_eq!(again.path, tried.path);
    let next = port.bridge.told_of(&third).await;
    assert_eq!(events(&next.body).len(), 1, "the second is not told again");
}

#[tokio::test]
async fn a_new_namespace_counts_who_is_there_already() {
    let mut port = Port::open("namespaces: {}\n", "").await;
    let alice = port.person("alice").await;
    let room = port.room(&alice, json!({})).await;
    port.say(&alice, &room, "before").await;
    port.stop().await;
    port.register_as(|text| {
        text.replace("namespaces: {}", "namespaces: { users: [{ exclusive: false, regex: '@alice:.*' }] }")
    });
    port.start().await;
    let said = port.say(&alice, &room, "after").await;
    let told = port.bridge.told_of(&said).await;
    let texts: Vec<&Value> = events(&told.body).iter().map(|event| &event["content"]["body"]).collect();
    assert_eq!(texts, [&json!("after")], "what was before is not told");
}

#[tokio::test]
async fn rooms_and_aliases_of_a_namespace_are_followed_too() {
    let registration = "namespaces:\n  aliases: [{ exclusive: false, regex: '#watched:a.test' }]\n";
    let mut port = Port::open(registration, "").await;
    let alice = port.person("alice").await;
    let room = port.room(&alice, json!({ "room_alias_name": "watched" })).await;
    let other = port.room(&alice, json!({ "room_alias_name": "unwatched" })).await;
    let hidden = port.say(&alice, &other, "hidden").await;
    let said = port.say(&alice, &room, "seen").await;
    let told = port.bridge.told_of(&said).await;
    assert!(events(&told.body).iter().all(|event| event["event_id"] != json!(hidden)));
}

#[tokio::test]
async fn typing_and_receipts_come_with_their_room_and_private_ones_do_not() {
    let mut port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let room = bridged(&port, &alice).await;
    let said = port.say(&alice, &room, "hello").await;
    port.bridge.told_of(&said).await;
    let of_kind = |body: &Value, kind: &str| {
        body["ephemeral"].as_array().and_then(|all| all.iter().find(|event| event["type"] == kind)).cloned()
    };
    let typing = format!("/rooms/{room}/typing/@alice:a.test");
    port.ok(&alice, "PUT", &typing, json!({ "typing": true, "timeout": 30_000 })).await;
    let told = port.bridge.transaction(|body| of_kind(body, "m.typing").is_some()).await;
    let typing = of_kind(&told.body, "m.typing").unwrap();
    assert_eq!(
        (&typing["room_id"], &typing["content"]["user_ids"]),
        (&json!(room), &json!(["@alice:a.test"]))
    );
    assert_eq!(told.body["events"], json!([]), "the specification wants the list even where it is empty");
    let receipt = |kind: &str| format!("/rooms/{room}/receipt/{kind}/{said}");
    port.ok(&alice, "POST", &receipt("m.read.private"), json!({})).await;
    port.ok(AS_TOKEN, "POST", &format!("{}{GHOST}", receipt("m.read.private")), json!({})).await;
    let told = port.bridge.transaction(|body| of_kind(body, "m.receipt").is_some()).await;
    let read = of_kind(&told.body, "m.receipt").unwrap();
    let private = &read["content"][&said]["m.read.private"];
    assert!(private.get("@_irc_ann:a.test").is_some(), "its own user's: {read}");
    assert!(!told.text.contains("@alice:a.test"), "and nobody else's");
    port.ok(&alice, "POST", &receipt("m.read"), json!({})).await;
    let told = port.bridge.transaction(|body| of_kind(body, "m.receipt").is_some()).await;
    let read = of_kind(&told.body, "m.receipt").unwrap();
    assert!(read["content"][&said]["m.read"]["@alice:a.test"]["ts"].is_u64());
    assert_eq!(read["room_id"], json!(room));
}

#[tokio::test]
async fn presence_of_those_whom_a_service_meets_is_told() {
    let mut port = Port::open(WHOLE, "[delivery]\npresence = true\n").await;
    let (alice, stranger) = (port.person("alice").await, port.person("stranger").await);
    let room = bridged(&port, &alice).await;
    let said = port.say(&alice, &room, "hello").await;
    port.bridge.told_of(&said).await;
    for (token, name) in [(&stranger, "stranger"), (&alice, "alice")] {
        let path = format!("/presence/@{name}:a.test/status");
        port.ok(token, "PUT", &path, json!({ "presence": "online", "status_msg": "here" })).await;
    }
    let told = port.bridge.transaction(|body| body["ephemeral"].is_array()).await;
    let event = &told.body["ephemeral"][0];
    assert_eq!((&event["type"], &event["sender"]), (&json!("m.presence"), &json!("@alice:a.test")));
    assert_eq!(event["content"]["status_msg"], "here");
    assert!(!told.text.contains("stranger"));
}

#[tokio::test]
async fn a_service_that_wants_no_more_is_told_events_alone() {
    let registration = "namespaces:\n  users: [{ exclusive: true, regex: '@_irc_.*' }]\n";
    let mut port = Port::open(registration, "").await;
    let alice = port.person("alice").await;
    let room = bridged(&port, &alice).await;
    let said = port.say(&alice, &room, "hello").await;
    port.ok(&alice, "POST", &format!("/rooms/{room}/receipt/m.read/{said}"), json!({})).await;
    port.ok(AS_TOKEN, "PUT", &format!("/devices/BRIDGE{GHOST}"), json!({})).await;
    let messages = json!({ "messages": { "@_irc_ann:a.test": { "BRIDGE": { "secret": 1 } } } });
    port.ok(&alice, "PUT", "/sendToDevice/m.test/1", messages).await;
    let last = port.say(&alice, &room, "last").await;
    loop {
        let asked = port.bridge.next().await;
        let keys: Vec<&String> = asked.body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["events"]);
        if events(&asked.body).iter().any(|event| event["event_id"] == json!(last)) {
            break;
        }
    }
}

#[tokio::test]
async fn encryption_is_told_to_services_that_do_it() {
    let mut port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let room = bridged(&port, &alice).await;
    let said = port.say(&alice, &room, "hello").await;
    port.bridge.told_of(&said).await;
    port.ok(AS_TOKEN, "PUT", &format!("/devices/BRIDGE{GHOST}"), json!({})).await;
    let as_device = format!("{GHOST}&device_id=BRIDGE");
    let keys =
        json!({ "one_time_keys": { "curve25519:AAAAHg": "zKbLg+NrIjpnagy+pIY6uPL4ZwEG2v+8F9lmgsnlZzs" } });
    port.refused((AS_TOKEN, "POST", &format!("/keys/upload{GHOST}")), keys.clone(), (403, "M_FORBIDDEN"))
        .await;
    port.ok(AS_TOKEN, "POST", &format!("/keys/upload{as_device}"), keys).await;
    let counts = |body: &Value| {
        body["org.matrix.msc3202.device_one_time_keys_count"]["@_irc_ann:a.test"]["BRIDGE"].clone()
    };
    let told = port.bridge.transaction(|body| counts(body)["curve25519"] == 1).await;
    assert_eq!(counts(&told.body)["signed_curve25519"], 0);
    let fallback = "org.matrix.msc3202.device_unused_fallback_key_types";
    assert_eq!(told.body[fallback]["@_irc_ann:a.test"]["BRIDGE"], json!([]));

    let content = json!({ "secret": 1 });
    let messages = json!({ "messages": { "@_irc_ann:a.test": { "BRIDGE": content, "OTHER": content } } });
    port.ok(&alice, "PUT", "/sendToDevice/m.test/1", messages).await;
    let letters = "de.sorunome.msc2409.to_device";
    let told = port.bridge.transaction(|body| body.get(letters).is_some()).await;
    let letter = json!({
        "type": "m.test", "sender": "@alice:a.test", "content": { "secret": 1 },
        "to_user_id": "@_irc_ann:a.test", "to_device_id": "BRIDGE",
    });
    assert_eq!(told.body[letters], json!([letter]));
    let said = port.say(&alice, &room, "again").await;
    port.bridge.told_of(&said).await;
    let sync = port.ok(AS_TOKEN, "GET", &format!("/sync{as_device}&timeout=0"), Value::Null).await;
    assert!(sync.get("to_device").is_none(), "what was taken has left the inbox: {sync}");

    let lists = "org.matrix.msc3202.device_lists";
    let bob = port.person("bob").await;
    port.ok(&bob, "POST", &format!("/join/{room}"), json!({})).await;
    let told = port.bridge.transaction(|body| body.get(lists).is_some()).await;
    assert_eq!(told.body[lists], json!({ "changed": ["@bob:a.test"], "left": [] }));
    port.ok(&bob, "POST", &format!("/rooms/{room}/leave"), json!({})).await;
    let told = port.bridge.transaction(|body| body.get(lists).is_some()).await;
    assert_eq!(told.body[lists], json!({ "changed": [], "left": ["@bob:a.test"] }));
}
