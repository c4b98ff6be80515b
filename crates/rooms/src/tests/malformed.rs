//! Events that are signed as they should be and are not as they should be, and JSON that two parsers read as two things.

use chappe_rules::build::SigningKey;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, RoomId,
    room_version_rules::RoomVersionRules,
    server_name,
    signatures::{Ed25519KeyPair, add_content_hash_to_event, hash_and_sign_event, sign_event},
};
use serde_json::{json, value::RawValue};

use super::net::{ALICE, BOB, Net, actor, bodies, join, room, say, state, stored, user, whole_state};
use crate::{Error, Invitation, Rooms};

/// Fields of an event and what they become.
type Changes = Vec<(&'static str, CanonicalJsonValue)>;

/// A room of `a` in which `b`, whose key has the seed 2, has a user.
async fn shared(net: &Net) -> (Rooms, Rooms, OwnedRoomId) {
    net.couple(json!({ "preset": "public_chat", "room_version": "11" })).await
}

/// What is stored of an event, to be changed.
pub(super) async fn parsed(rooms: &Rooms, room: &RoomId, event: &EventId) -> CanonicalJsonObject {
    serde_json::from_str(&stored(rooms, room, event).await).unwrap()
}

/// Hashes and signs as `b` would.
fn signed(event: CanonicalJsonObject) -> Box<RawValue> {
    signed_in(&RoomVersionRules::V11, event)
}

/// The same in any room version.
pub(super) fn signed_in(rules: &RoomVersionRules, mut event: CanonicalJsonObject) -> Box<RawValue> {
    event.remove("signatures");
    event.remove("hashes");
    hash_and_sign_event("b.example", &key_of_b(), &mut event, &rules.redaction).unwrap();
    serde_json::value::to_raw_value(&event).unwrap()
}

fn key_of_b() -> Ed25519KeyPair {
    const HEAD: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let key = Ed25519KeyPair::from_der(&[&HEAD[..], &[2; 32]].concat(), "k".to_owned()).unwrap();
    assert_eq!(key.public_key(), SigningKey::from_seed([2; 32], "k").unwrap().public_key());
    key
}

/// Hashes and signs a membership as other servers do that says of a third party what is no object.
fn signed_elsewhere(mut event: CanonicalJsonObject) -> Box<RawValue> {
    event.remove("signatures");
    event.remove("hashes");
    add_content_hash_to_event(&mut event).unwrap();
    let content = event["content"].clone();
    event.get_mut("content").unwrap().as_object_mut().unwrap().remove("third_party_invite");
    sign_event("b.example", &key_of_b(), &mut event, &RoomVersionRules::V11.redaction).unwrap();
    event.insert("content".to_owned(), content);
    serde_json::value::to_raw_value(&event).unwrap()
}

fn text(text: impl Into<String>) -> CanonicalJsonValue {
    CanonicalJsonValue::String(text.into())
}

fn ids(ids: impl IntoIterator<Item = OwnedEventId>) -> CanonicalJsonValue {
    CanonicalJsonValue::Array(ids.into_iter().map(text).collect())
}

fn made_up(count: usize) -> impl Iterator<Item = OwnedEventId> {
    (0..count).map(|number| EventId::parse(format!("${number:043}")).unwrap())
}

#[tokio::test]
async fn signed_events_that_break_a_rule_never_show_and_stop_nobody() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let elsewhere = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let foreign = say(&a, ALICE, &elsewhere, "of another room").await;
    net.deliver().await;
    let base = say(&b, BOB, &id, "base").await;
    let base = parsed(&b, &id, &base).await;
    let strings = |field: &str| {
        let list = base[field].as_array().unwrap().iter();
        list.map(|id| EventId::parse(id.as_str().unwrap()).unwrap()).collect::<Vec<_>>()
    };
    let (prev, auth) = (strings("prev_events"), strings("auth_events"));
    let state = whole_state(&a, &id).await;
    let create = &state[&("m.room.create".to_owned(), String::new())];
    let long = "é".repeat(128);
    let with = |more: Vec<OwnedEventId>| ids(auth.iter().cloned().chain(more));
    let bad: Vec<(&str, Changes)> = vec![
        ("type of 256 bytes", vec![("type", text(long.clone()))]),
        ("state key of 256 bytes", vec![("type", text("x.y")), ("state_key", text(long.clone()))]),
        ("sender of 256 bytes and more", vec![("sender", text(format!("@{long}:b.example")))]),
        ("sender of another server", vec![("sender", text(ALICE))]),
        ("21 previous events", vec![("prev_events", ids(prev.iter().cloned().chain(made_up(20))))]),
        ("no previous events", vec![("prev_events", ids([]))]),
        ("11 auth events", vec![("auth_events", with(made_up(11 - auth.len()).collect()))]),
        ("an auth event twice", vec![("auth_events", with(vec![auth[0].clone()]))]),
        ("an auth event of another room", vec![("auth_events", with(vec![foreign]))]),
        ("no create event", vec![("auth_events", ids(auth.iter().filter(|id| *id != create).cloned()))]),
        ("content is a list", vec![("content", CanonicalJsonValue::Array(vec![]))]),
        ("depth is a text", vec![("depth", text("1"))]),
        ("time is a text", vec![("origin_server_ts", text("1"))]),
    ];
    let made = |body: &str, changes: Changes| {
        let mut event = base.clone();
        let content = CanonicalJsonObject::from([
            ("msgtype".to_owned(), text("m.text")),
            ("body".to_owned(), text(body)),
        ]);
        event.insert("content".to_owned(), CanonicalJsonValue::Object(content));
        event.extend(changes.into_iter().map(|(field, value)| (field.to_owned(), value)));
        signed(event)
    };
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let mut pdus: Vec<Box<RawValue>> = bad.into_iter().map(|(name, changes)| made(name, changes)).collect();
    pdus.push(made("good", Vec::new()));
    let outcomes = a.receive(server_name!("b.example"), pdus).await;
    assert!(outcomes.last().unwrap().result.is_ok(), "{:?}", outcomes.last());
    let said = bodies(&a, &id).await;
    assert!(said.contains(&"good".to_owned()), "{said:?}");
    for (name, outcome) in names.iter().zip(&outcomes) {
        assert!(!said.iter().any(|body| body == name), "{name} is shown: {outcome:?}");
        let Some(event) = &outcome.event_id else { continue };
        assert!(a.visible_to_user(&user(ALICE), &id, event).await.is_err(), "{name} is seen");
        assert!(a.visible_to_server(server_name!("b.example"), &id, event).await.is_err(), "{name} is told");
    }
    // One byte less is fine, and so is any time.
    let fits = made("fits", vec![("type", text(format!("{}a", "é".repeat(127))))]);
    let early = made("early", vec![("origin_server_ts", CanonicalJsonValue::Integer(ruma::int!(-1)))]);
    let outcomes = a.receive(server_name!("b.example"), vec![fits, early]).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    assert_eq!(bodies(&a, &id).await.last().unwrap(), "early");
}

#[tokio::test]
async fn json_that_is_not_canonical_is_dropped_alone() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let event = say(&b, BOB, &id, "good").await;
    let good = serde_json::to_string(&parsed(&b, &id, &event).await).unwrap();
    let put = |field: &str| format!("{{{field},{}", &good[1..]);
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let flawed = [
        good.replace("\"depth\":", "\"depth\":9007199254740992,\"was\":"),
        good.replace("\"depth\":", "\"depth\":9223372036854775808,\"was\":"),
        good.replace("\"depth\":", "\"depth\":1.0,\"was\":"),
        good.replace("\"depth\":", "\"depth\":-1,\"was\":"),
        good.replace("\"depth\":", "\"depth\":1e3,\"was\":"),
        good.replace("\"content\":{", "\"content\":{\"n\":9007199254740992,"),
        good.replace("\"content\":{", "\"content\":{\"n\":-0,"),
        good.replace("\"content\":{", "\"content\":{\"n\":{\"n\":1,\"n\":1},"),
        good.replace("\"hashes\":{", "\"hashes\":{\"n\":1.5,"),
        put("\"unsigned\":1,\"unsigned\":1"),
        put("\"depth\":1"),
        put("\"type\":\"m.room.message\""),
        put(&format!("\"room_id\":\"{id}\"")),
        put("\"a\":\"\\ud800\""),
        put(&format!("\"a\":{deep}")),
    ];
    // What serde takes for no JSON at all cannot be in a transaction: its sender is told so.
    let raws = flawed.into_iter().filter_map(|text| RawValue::from_string(text).ok());
    let mut pdus: Vec<_> = raws.collect();
    assert!(pdus.len() >= 13, "{}", pdus.len());
    pdus.push(RawValue::from_string(good).unwrap());
    let outcomes = a.receive(server_name!("b.example"), pdus).await;
    let taken: Vec<usize> =
        outcomes.iter().enumerate().filter(|(_, outcome)| outcome.result.is_ok()).map(|(at, _)| at).collect();
    assert_eq!(taken, [outcomes.len() - 1]);
}

#[tokio::test]
async fn what_is_unsigned_is_left_out_whatever_numbers_it_holds() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    for number in ["1.5", "9223372036854775808"] {
        let event = say(&b, BOB, &id, number).await;
        let good = serde_json::to_string(&parsed(&b, &id, &event).await).unwrap();
        let text = format!("{{\"unsigned\":{{\"age\":{number}}},{}", &good[1..]);
        let outcomes = a.receive(server_name!("b.example"), vec![RawValue::from_string(text).unwrap()]).await;
        assert!(outcomes[0].result.is_ok(), "{outcomes:?}");
        assert_eq!(bodies(&a, &id).await.last().unwrap(), number);
    }
}

#[tokio::test]
async fn an_event_that_names_two_rooms_does_not_pass_the_access_list_of_either() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let other = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    join(&b, BOB, &other).await;
    let acl = json!({ "allow": ["*"], "deny": ["b.example"] });
    a.send(&actor(ALICE), &id, state("m.room.server_acl", "", &acl), None).await.unwrap();
    let event = say(&b, BOB, &id, "unheard").await;
    let good = serde_json::to_string(&parsed(&b, &id, &event).await).unwrap();
    let first = format!("{{\"room_id\":\"{other}\",{}", &good[1..]);
    let last = format!("{},\"room_id\":\"{other}\"}}", &good[..good.len() - 1]);
    let escaped = good.replacen("\"!", "\"\\u0021", 1);
    for text in [first, last, escaped, good] {
        let outcomes = a.receive(server_name!("b.example"), vec![RawValue::from_string(text).unwrap()]).await;
        assert!(outcomes[0].result.is_err(), "{outcomes:?}");
    }
    assert!(!bodies(&a, &id).await.contains(&"unheard".to_owned()));
    assert!(!bodies(&a, &other).await.contains(&"unheard".to_owned()));
}

/// An invite by Bob into a room that `a` does not know, otherwise than it should be.
async fn invite(b: &Rooms, id: &RoomId, changes: Changes) -> (chappe_rules::Pdu, Invitation) {
    let base = say(b, BOB, id, "base").await;
    let mut event = parsed(b, id, &base).await;
    let content = CanonicalJsonObject::from([("membership".to_owned(), text("invite"))]);
    let fields = [
        ("type", text("m.room.member")),
        ("room_id", text("!elsewhere:b.example")),
        ("content", CanonicalJsonValue::Object(content)),
    ];
    event.extend(fields.into_iter().chain(changes).map(|(field, value)| (field.to_owned(), value)));
    let event = signed(event);
    let pdu = chappe_rules::Pdu::parse(&RoomVersionRules::V11, event.get().as_bytes()).unwrap();
    (pdu, Invitation { room_version: ruma::RoomVersionId::V11, event, room_state: Vec::new() })
}

#[tokio::test]
async fn an_invite_for_nobody_is_refused_and_leaves_nothing() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let nobody = user("@nobody:a.example");
    let (pdu, invitation) = invite(&b, &id, vec![("state_key", text(nobody.as_str()))]).await;
    let origin = server_name!("b.example");
    let refused = a.accept_invite(origin, pdu.room_id(), pdu.event_id(), invitation).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    assert!(a.store().read().out_of_band(&nobody, pdu.room_id()).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_no_invite_of_a_user_here_by_one_of_the_sender_is_not_signed() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let joins = CanonicalJsonObject::from([("membership".to_owned(), text("join"))]);
    for (field, value) in [
        ("type", text("m.room.message")),
        ("content", CanonicalJsonValue::Object(joins)),
        ("sender", text("@mallory:c.example")),
        ("state_key", text(BOB)),
        ("state_key", text("nobody")),
    ] {
        let (pdu, invitation) = invite(&b, &id, vec![("state_key", text(ALICE)), (field, value)]).await;
        let origin = server_name!("b.example");
        let refused = a.accept_invite(origin, pdu.room_id(), pdu.event_id(), invitation).await;
        assert!(matches!(refused, Err(Error::InvalidParam(_))), "{field}: {refused:?}");
    }
}

#[tokio::test]
async fn who_says_of_a_third_party_what_is_no_object_is_heard_and_so_is_what_follows() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let mut last = say(&b, BOB, &id, "base").await;
    net.deliver().await;
    let base = parsed(&b, &id, &last).await;
    for (number, third_party) in [json!(null), json!(5), json!("x"), json!([])].into_iter().enumerate() {
        let body = format!("after {number}");
        let content = json!({ "membership": "join", "displayname": body, "third_party_invite": third_party });
        let join = [
            ("type", text("m.room.member")),
            ("state_key", text(BOB)),
            ("content", content.try_into().unwrap()),
            ("prev_events", ids([last])),
        ];
        let mut event = base.clone();
        event.extend(join.map(|(field, value)| (field.to_owned(), value)));
        let taken = a.receive(server_name!("b.example"), vec![signed_elsewhere(event)]).await.remove(0);
        assert!(taken.result.is_ok(), "{taken:?}");
        let joined = taken.event_id.unwrap();
        let state = whole_state(&a, &id).await;
        assert_eq!(state[&("m.room.member".to_owned(), BOB.to_owned())], joined);

        let content = json!({ "msgtype": "m.text", "body": body });
        let mut event = base.clone();
        event.insert("content".to_owned(), content.try_into().unwrap());
        event.insert("prev_events".to_owned(), ids([joined]));
        let taken = a.receive(server_name!("b.example"), vec![signed(event)]).await.remove(0);
        assert!(taken.result.is_ok(), "{taken:?}");
        last = taken.event_id.unwrap();
        assert_eq!(bodies(&a, &id).await.last(), Some(&body));
    }
}

#[tokio::test]
async fn no_client_says_anything_of_a_third_party() {
    const CAROL: &str = "@carol:a.example";
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    for third_party in [json!(null), json!(5), json!({ "display_name": "x", "signed": {} })] {
        for (rooms, by, of, membership) in [(&b, BOB, BOB, "join"), (&a, ALICE, CAROL, "ban")] {
            let content = json!({ "membership": membership, "third_party_invite": third_party });
            let draft = state("m.room.member", of, &content);
            let sent = rooms.send(&actor(by), &id, draft, None).await.unwrap();
            net.deliver().await;
            let key = ("m.room.member".to_owned(), of.to_owned());
            for server in [&a, &b] {
                assert_eq!(whole_state(server, &id).await[&key], sent);
            }
            let event = parsed(&a, &id, &sent).await;
            assert!(!event["content"].as_object().unwrap().contains_key("third_party_invite"));
        }
    }
}
