//! Peers that lie: templates, answers to joins, forged and foreign events.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use chappe_kv::{Db, Memory};
use chappe_rules::{Pdu, redact};
use chappe_store::Status;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomId, room_version_rules::RoomVersionRules, server_name,
};
use serde_json::{Value, json, value::RawValue};
use tokio::time::{advance, sleep, timeout};

use super::{
    malformed::{parsed, signed_in},
    net::{
        ALICE, BOB, CAROL, Net, actor, amend, bodies, membership, raw, room, say, state, status, user,
        whole_state,
    },
    policy_server::{key, names, policy_server},
};
use crate::{
    Change, Config, Error, JoinAnswer, Rooms, SignedMember,
    desk::Desk,
    receive::{Budget, Checked, Outliers, Proven, STATES},
};

async fn open_room(net: &Net) -> (Rooms, Rooms, OwnedRoomId) {
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    (a, b, id)
}

/// The same with users of `c` and `d` in it.
async fn open_to_two(net: &Net) -> ([Rooms; 4], OwnedRoomId) {
    let (a, b, id) = open_room(net).await;
    let (c, d) = (net.server("c.example", 3), net.server("d.example", 4));
    for (rooms, who) in [(&c, CAROL), (&d, "@dan:d.example")] {
        rooms.join(&actor(who), &id, vec![a.server().to_owned()], serde_json::Map::new()).await.unwrap();
        net.deliver().await;
    }
    ([a, b, c, d], id)
}

/// A room of `a` with Bob of `b` in it, and nothing on its way.
async fn shared(net: &Net) -> (Rooms, Rooms, OwnedRoomId) {
    let couple = net.couple(json!({ "preset": "public_chat" })).await;
    net.deliver().await;
    couple
}

async fn join(b: &Rooms, id: &RoomId) -> Result<(), Error> {
    b.join(&actor(BOB), id, vec!["a.example".try_into().unwrap()], serde_json::Map::new()).await
}

/// Waits until Bob's join is taken back where it was accepted.
async fn taken_back(a: &Rooms, id: &RoomId) {
    let mut commits = a.store().visible();
    while membership(a, id, BOB).await != Some("leave") {
        timeout(Duration::from_mins(1), commits.changed()).await.expect("it is taken back").unwrap();
    }
}

/// Bob's join is accepted and comes too late: he is in no room, and it is taken back. Another one works.
async fn comes_too_late(a: &Rooms, b: &Rooms, id: &RoomId) {
    let late = join(b, id).await;
    assert!(matches!(late, Err(Error::Unreachable)), "{late:?}");
    assert!(b.store().read().user_rooms(&user(BOB)).await.unwrap().is_empty());
    taken_back(a, id).await;
    join(b, id).await.unwrap();
}

/// `a` is away from when it has accepted a join until it is asked for a leave. As it goes, `also` happens.
fn lose_answer(net: &Net, also: impl FnOnce(&Net) + Send + 'static) {
    let (lost, found) = (net.clone(), net.clone());
    let loses = async move {
        lost.down.lock().insert(server_name!("a.example").to_owned());
        also(&lost);
    };
    let finds = async move { found.down.lock().clear() };
    net.before.lock().insert("join_answer", Box::pin(loses));
    net.before.lock().insert("make_leave", Box::pin(finds));
}

/// An event, signed as `b` would and checked by `a`.
async fn proven(a: &Rooms, event: CanonicalJsonObject) -> Proven {
    let rules = &RoomVersionRules::V11;
    let pdu = Pdu::parse(rules, signed_in(rules, event).get().as_bytes()).unwrap();
    a.0.check_one(rules, pdu).await.unwrap()
}

/// An event as nothing is left of it but what its signature covers.
pub(super) fn emptied(event: &RawValue) -> Pdu {
    let rules = &RoomVersionRules::V11;
    redact::event(rules, &Pdu::parse(rules, event.get().as_bytes()).unwrap()).unwrap()
}

/// Something that Alice says: its id, the whole of it, and what `b` believes of it without its text.
async fn blanked(a: &Rooms, b: &Rooms, id: &RoomId) -> (OwnedEventId, Box<RawValue>, Proven) {
    let said = say(a, ALICE, id, "whole").await;
    let whole = raw(a, id, &said).await;
    let given = b.0.check_one(&RoomVersionRules::V11, emptied(&whole)).await.unwrap();
    (said, whole, given)
}

/// A room of `a` in which Bob has some power.
pub(super) async fn shared_power(net: &Net) -> (Rooms, Rooms, OwnedRoomId) {
    let levels = json!({ "users": { ALICE: 100, BOB: 50 } });
    let initial = [json!({ "type": "m.room.power_levels", "content": levels })];
    let body = json!({ "preset": "public_chat", "room_version": "11", "initial_state": initial });
    let couple = net.couple(body).await;
    net.deliver().await;
    couple
}

/// What Bob sends on top of some state that `a` has.
pub(super) async fn by_bob(a: &Rooms, id: &RoomId, on: (&str, &str), said: &Value) -> Box<RawValue> {
    let state = whole_state(a, id).await;
    let at = |(kind, key): (&str, &str)| state[&(kind.to_owned(), key.to_owned())].clone();
    let auth = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", BOB)].map(at);
    let mut event = json!({
        "sender": BOB, "room_id": id, "depth": 50, "origin_server_ts": 1_000, "prev_events": [at(on)],
        "auth_events": auth,
    });
    event.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    signed_in(&RoomVersionRules::V11, serde_json::from_value(event).unwrap())
}

/// Bob's server sends an event as it likes; gives its id.
pub(super) async fn push(a: &Rooms, event: &RawValue) -> OwnedEventId {
    let sent = a.receive(server_name!("b.example"), vec![event.to_owned()]).await.remove(0);
    assert!(sent.result.is_ok(), "{sent:?}");
    sent.event_id.unwrap()
}

/// Sends an event from `a` to `b`, which takes it.
async fn send(event: &RawValue, b: &Rooms) {
    let sent = b.receive(server_name!("a.example"), vec![event.to_owned()]).await.remove(0);
    assert!(sent.result.is_ok(), "{sent:?}");
}

fn with_field(raw: &RawValue, change: impl Fn(&mut Value)) -> Box<RawValue> {
    let mut value: Value = serde_json::from_str(raw.get()).unwrap();
    change(&mut value);
    serde_json::value::to_raw_value(&value).unwrap()
}

/// A membership, signed as `b` would, to be handed in.
fn handed_in(event: &RawValue) -> SignedMember {
    let rules = &RoomVersionRules::V11;
    let pdu = signed_in(rules, serde_json::from_str(event.get()).unwrap());
    let event_id = Pdu::parse(rules, pdu.get().as_bytes()).unwrap().event_id().to_owned();
    SignedMember { event_id, pdu }
}

fn is(raw: &RawValue, kind: &str) -> bool {
    let value: Value = serde_json::from_str(raw.get()).unwrap();
    value["type"] == kind
}

#[tokio::test]
async fn lying_answers_to_a_join_are_refused_and_leave_no_room() {
    type Lie = fn(JoinAnswer) -> JoinAnswer;
    let lies: [(&str, Lie); 7] = [
        ("no create", |mut answer| {
            answer.state.retain(|raw| !is(raw, "m.room.create"));
            answer
        }),
        ("nothing", |_| JoinAnswer::default()),
        ("another room", |mut answer| {
            for raw in &mut answer.state {
                *raw = with_field(raw, |event| event["room_id"] = json!("!other:a.example"));
            }
            answer
        }),
        ("forged join rules", |mut answer| {
            for raw in answer.state.iter_mut().filter(|raw| is(raw, "m.room.join_rules")) {
                *raw = with_field(raw, |event| event["content"]["join_rule"] = json!("invite"));
            }
            answer
        }),
        ("unsigned", |mut answer| {
            for raw in &mut answer.state {
                *raw = with_field(raw, |event| event["signatures"] = json!({}));
            }
            answer
        }),
        ("another join", |mut answer| {
            answer.event = answer.state.first().cloned();
            answer
        }),
        ("two events of one key", |mut answer| {
            answer.state.extend(answer.state.clone());
            answer
        }),
    ];
    for (what, lie) in lies {
        let net = Net::default();
        let (a, b, id) = open_room(&net).await;
        *net.twist.lock() = Some(Arc::new(lie));
        let result = join(&b, &id).await;
        assert!(matches!(result, Err(Error::HostilePeer(_))), "{what}: {result:?}");
        assert!(b.store().read().user_rooms(&user(BOB)).await.unwrap().is_empty(), "{what}");
        taken_back(&a, &id).await;
        // Told the truth, it works.
        *net.twist.lock() = None;
        join(&b, &id).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_accepted_and_does_not_come_in_in_time_is_taken_back() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    net.before.lock().insert("join_answer", Box::pin(std::future::pending::<()>()));
    comes_too_late(&a, &b, &id).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_accepted_and_whose_answer_is_lost_is_taken_back() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    lose_answer(&net, |_| ());
    comes_too_late(&a, &b, &id).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_is_taken_back_where_it_was_accepted_though_another_server_was_asked_since() {
    let net = Net::default();
    let (a, c) = (net.server("a.example", 1), net.server("c.example", 3));
    let config = Config { partial_joins: false, ..Config::default() };
    let b = net.server_with("b.example", 2, Db::new(Memory::default()), config);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    c.join(&actor(CAROL), &id, vec![a.server().to_owned()], serde_json::Map::new()).await.unwrap();
    // Of the others no answer comes either.
    lose_answer(&net, |net| *net.partial_only.lock() = true);
    let via = vec![a.server().to_owned(), c.server().to_owned()];
    let late = b.join(&actor(BOB), &id, via, serde_json::Map::new()).await;
    assert!(matches!(late, Err(Error::Unreachable)), "{late:?}");
    taken_back(&a, &id).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_is_not_taken_back_while_another_one_of_the_same_user_comes_in() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    net.before.lock().insert("join_answer", Box::pin(std::future::pending::<()>()));
    let again = async {
        sleep(Duration::from_secs(100)).await;
        net.before.lock().insert("join_answer", Box::pin(sleep(Duration::from_mins(1))));
        join(&b, &id).await
    };
    let (late, came) = tokio::join!(join(&b, &id), again);
    assert!(matches!(late, Err(Error::Unreachable)), "{late:?}");
    came.unwrap();
    for rooms in [&a, &b] {
        assert_eq!(membership(rooms, &id, BOB).await, Some("join"));
    }
}

#[tokio::test]
async fn of_an_event_that_comes_back_only_the_signatures_are_taken() {
    let net = Net::default();
    let (_a, b, id) = open_room(&net).await;
    let twist = |mut answer: JoinAnswer| {
        let blank = |raw| with_field(raw, |event| event["content"] = json!({ "membership": "join" }));
        answer.event = answer.event.as_deref().map(blank);
        answer
    };
    *net.twist.lock() = Some(Arc::new(twist));
    let said = serde_json::Map::from_iter([("reason".to_owned(), json!("hello"))]);
    b.join(&actor(BOB), &id, vec!["a.example".try_into().unwrap()], said).await.unwrap();
    let view = b.view(&id).await.unwrap();
    let member = view.current("m.room.member".into(), BOB).await.unwrap().unwrap();
    let content: Value = member.pdu.content_as().unwrap();
    assert_eq!(content["reason"], "hello");
}

#[tokio::test]
async fn a_template_cannot_make_us_sign_what_the_peer_likes() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    *net.twist_template.lock() = Some(Arc::new(|mut event| {
        event["redacts"] = json!("$x");
        event["content"] = json!({ "users": { "@mallory:a.example": 100 }, "membership": "join" });
        event
    }));
    join(&b, &id).await.unwrap();
    let state = whole_state(&a, &id).await;
    let joined = &state[&("m.room.member".to_owned(), BOB.to_owned())];
    let joined: Value = serde_json::from_str(raw(&a, &id, joined).await.get()).unwrap();
    assert!(joined.get("redacts").is_none() && joined["content"].get("users").is_none(), "{joined}");
    assert_eq!(state, whole_state(&b, &id).await);
}

#[tokio::test]
async fn the_template_of_another_event_is_thrown_away() {
    type Twist = fn(&mut Value);
    const SAID: [&str; 5] = ["type", "room_id", "sender", "state_key", "content"];
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    let twists: [(&str, Twist); 5] = [
        ("type", |event| event["type"] = json!("m.room.power_levels")),
        ("room", |event| event["room_id"] = json!("!other:a.example")),
        ("sender", |event| event["sender"] = json!("@root:b.example")),
        ("key", |event| event["state_key"] = json!("")),
        ("membership", |event| event["content"]["membership"] = json!("ban")),
    ];
    let offer = |twist: Twist| {
        let twisted = move |mut event| {
            twist(&mut event);
            event
        };
        *net.twist_template.lock() = Some(Arc::new(twisted));
    };
    for (what, twist) in twists {
        offer(twist);
        let refused = join(&b, &id).await;
        assert!(matches!(refused, Err(Error::HostilePeer(_))), "{what}: {refused:?}");
        assert_eq!(membership(&a, &id, BOB).await, None, "{what}");
    }
    for field in SAID {
        let without = move |mut event: Value| {
            event.as_object_mut().unwrap().remove(field).unwrap();
            event
        };
        *net.twist_template.lock() = Some(Arc::new(without));
        let refused = join(&b, &id).await;
        assert!(matches!(refused, Err(Error::HostilePeer(_))), "{field}: {refused:?}");
        assert_eq!(membership(&a, &id, BOB).await, None, "{field}");
    }
    let no_membership: Twist = |event| event["content"] = json!({});
    offer(no_membership);
    let refused = join(&b, &id).await;
    assert!(matches!(refused, Err(Error::HostilePeer(_))), "{refused:?}");
    // What else is left out is put in here.
    let no_more: Twist = |event| {
        let of_place = ["auth_events", "prev_events", "depth"];
        let is_kept = |field: &str| SAID.contains(&field) || of_place.contains(&field);
        event.as_object_mut().unwrap().retain(|field, _| is_kept(field));
    };
    offer(no_more);
    join(&b, &id).await.unwrap();
}

#[tokio::test]
async fn only_the_right_membership_of_ones_own_user_is_accepted() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let origin = server_name!("b.example");
    let message = say(&b, BOB, &id, "hi").await;
    let pdu = raw(&b, &id, &message).await;
    let member = SignedMember { event_id: message, pdu };
    assert!(matches!(a.accept_join(origin, &id, member.clone()).await, Err(Error::InvalidParam(_))));
    assert!(a.accept_leave(origin, &id, member.clone()).await.is_err());
    assert!(a.accept_knock(origin, &id, member).await.is_err());
    let theirs = a.make_join(origin, &id, &user("@carol:c.example"), crate::VERSIONS).await;
    assert!(matches!(theirs, Err(Error::Forbidden(_))));
    let old = a.make_join(origin, &id, &user("@new:b.example"), &[ruma::RoomVersionId::V1]).await;
    assert!(matches!(old, Err(Error::IncompatibleRoomVersion(_))));
}

#[tokio::test]
async fn a_refused_join_is_refused_again() {
    let net = Net::default();
    let (a, _b) = (net.server("a.example", 1), net.server("b.example", 2));
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let id = room(&a, ALICE, json!({ "initial_state": [rule], "room_version": "11" })).await;
    let origin = server_name!("b.example");
    let template = a.make_knock(origin, &id, &user(BOB), crate::VERSIONS).await.unwrap();
    let join = with_field(&template.event, |event| event["content"] = json!({ "membership": "join" }));
    let member = handed_in(&join);
    for _ in 0..2 {
        let answer = a.accept_join(origin, &id, member.clone()).await;
        assert!(matches!(answer, Err(Error::Forbidden(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_join_that_rests_on_nothing_or_on_what_is_made_up_is_the_fault_of_its_server() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    let template = a.make_join(b.server(), &id, &user(BOB), crate::VERSIONS).await.unwrap();
    let made_up = json!([format!("${}", "A".repeat(43))]);
    for (field, named) in [("prev_events", json!([])), ("auth_events", made_up)] {
        let join = with_field(&template.event, |event| event[field] = named.clone());
        let answer = a.accept_join(b.server(), &id, handed_in(&join)).await;
        assert!(matches!(answer, Err(Error::InvalidParam(_))), "{field}: {answer:?}");
    }
    a.accept_join(b.server(), &id, handed_in(&template.event)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_comes_just_before_a_join_is_had_from_others_in_the_room() {
    let net = Net::default();
    let ([a, b, c, d], id) = open_to_two(&net).await;
    let missed = say(&a, ALICE, &id, "missed").await;
    net.lose(&a, "c.example").await;
    net.deliver().await;
    let template = a.make_join(b.server(), &id, &user(BOB), crate::VERSIONS).await.unwrap();
    let join = handed_in(&template.event);
    let hand_in = async || c.accept_join(b.server(), &id, join.clone()).await.map(drop);
    // Whoever made the template is gone for good.
    net.down.lock().extend([a.server().to_owned(), d.server().to_owned()]);
    let in_vain = hand_in().await;
    assert!(matches!(in_vain, Err(Error::Unreachable)), "{in_vain:?}");
    net.down.lock().remove(d.server());
    net.events.lock().clear();
    let too_soon = hand_in().await;
    assert!(matches!(too_soon, Err(Error::Unreachable)), "{too_soon:?}");
    assert!(net.events.lock().is_empty(), "others are bothered only so often");
    advance(Duration::from_mins(2)).await;
    hand_in().await.unwrap();
    assert!(net.events.lock().contains(&(d.server().to_owned(), missed)));
    assert_eq!(bodies(&c, &id).await, ["missed"]);
    assert_eq!(membership(&c, &id, BOB).await, Some("join"));
}

#[tokio::test]
async fn for_one_membership_of_a_server_at_a_time_others_are_asked() {
    let net = Net::default();
    let ([a, b, c, _], id) = open_to_two(&net).await;
    // What a says reaches all but c.
    let says = async |said: [&str; 2]| {
        net.down.lock().clear();
        for body in said {
            say(&a, ALICE, &id, body).await;
        }
        net.lose(&a, "c.example").await;
        net.deliver().await;
    };
    let join_of = async |who: &str| {
        let template = a.make_join(b.server(), &id, &user(who), crate::VERSIONS).await.unwrap();
        handed_in(&template.event)
    };
    says(["one", "two"]).await;
    let (first, second) = (join_of(BOB).await, join_of("@bess:b.example").await);
    net.down.lock().insert(a.server().to_owned());
    let (asked, origin, at, beside) = (c.clone(), b.server().to_owned(), id.clone(), second.clone());
    *net.meanwhile.lock() = Some(Box::pin(async move {
        let beside = asked.accept_join(&origin, &at, beside).await.map(drop);
        assert!(matches!(beside, Err(Error::Unreachable)), "{beside:?}");
    }));
    c.accept_join(b.server(), &id, first).await.unwrap();
    assert!(net.meanwhile.lock().is_none());
    c.accept_join(b.server(), &id, second).await.unwrap();
    // Once that is done, the next one need not wait.
    says(["three", "four"]).await;
    let third = join_of("@ben:b.example").await;
    net.down.lock().insert(a.server().to_owned());
    c.accept_join(b.server(), &id, third).await.unwrap();
    assert_eq!(bodies(&c, &id).await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn of_a_wrongly_signed_event_its_sender_is_told() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let said = say(&b, BOB, &id, "said").await;
    let good = raw(&b, &id, &said).await;
    let unsigned = with_field(&good, |event| event["signatures"] = json!({ "b.example": {} }));
    let changed = with_field(&good, |event| event["content"]["body"] = json!("not said"));
    for (origin, event) in [("b.example", unsigned), ("c.example", changed)] {
        let outcome = a.receive(origin.try_into().unwrap(), vec![event]).await.remove(0);
        assert_eq!(outcome.event_id.as_deref(), Some(&*said), "{outcome:?}");
        assert!(matches!(outcome.result, Err(Error::InvalidParam(_))), "{outcome:?}");
    }
    // The key may be had later.
    let with_another_key = with_field(&good, |event| {
        let signature = event["signatures"]["b.example"]["ed25519:k"].clone();
        event["signatures"]["b.example"] = json!({ "ed25519:other": signature });
    });
    let outcome = a.receive(server_name!("b.example"), vec![with_another_key]).await.remove(0);
    assert_eq!(outcome.event_id, None);
    assert!(matches!(outcome.result, Err(Error::HostilePeer(_))), "{outcome:?}");
    assert!(bodies(&a, &id).await.is_empty());
}

#[tokio::test]
async fn strangers_and_those_who_left_read_nothing() {
    let net = Net::default();
    let (a, b, id) = open_room(&net).await;
    let said = say(&a, ALICE, &id, "ours").await;
    let stranger = server_name!("c.example");
    assert!(a.event_for(stranger, &said).await.is_err());
    assert!(a.state_ids_for(stranger, &id, &said).await.is_err());
    assert!(a.event_auth_for(stranger, &id, &said).await.is_err());
    assert!(a.backfill_for(stranger, &id, std::slice::from_ref(&said), 10).await.is_err());
    join(&b, &id).await.unwrap();
    let other = room(&a, ALICE, json!({})).await;
    let hidden = say(&a, ALICE, &other, "hidden").await;
    let member = server_name!("b.example");
    assert!(a.event_for(member, &said).await.is_ok());
    assert!(matches!(a.event_for(member, &hidden).await, Err(Error::NotFound(_))));
    assert!(matches!(a.state_for(member, &id, &hidden).await, Err(Error::NotFound(_))));
    assert!(a.backfill_for(member, &id, std::slice::from_ref(&hidden), 10).await.unwrap().is_empty());
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    assert!(a.event_for(member, &said).await.is_err());
}

#[tokio::test]
async fn bad_events_of_a_transaction_do_not_stop_good_ones() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let good = say(&b, BOB, &id, "good").await;
    let good = raw(&b, &id, &good).await;
    let forged = with_field(&good, |event| event["sender"] = json!(ALICE));
    let unsigned = with_field(&good, |event| event["signatures"] = json!({ "b.example": {} }));
    let deep = with_field(&good, |event| event["depth"] = json!(-1));
    let elsewhere = with_field(&good, |event| event["room_id"] = json!("!no:a.example"));
    let junk = RawValue::from_string("[1]".to_owned()).unwrap();
    let outcomes =
        a.receive(server_name!("b.example"), vec![junk, deep, forged, unsigned, elsewhere, good]).await;
    let taken: Vec<bool> = outcomes.iter().map(|outcome| outcome.result.is_ok()).collect();
    assert_eq!(taken, [false, false, false, false, false, true]);
}

#[tokio::test]
async fn an_access_control_list_keeps_a_server_out() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let acl = json!({ "allow": ["*"], "deny": ["B.example"] });
    a.send(&actor(ALICE), &id, state("m.room.server_acl", "", &acl), None).await.unwrap();
    say(&b, BOB, &id, "unheard").await;
    net.deliver().await;
    assert!(!bodies(&a, &id).await.contains(&"unheard".to_owned()));
    assert!(
        a.make_join(server_name!("b.example"), &id, &user("@x:b.example"), crate::VERSIONS).await.is_err()
    );
    a.change(&actor(ALICE), &id, &user(BOB), Change::Kick, None).await.unwrap();
}

#[tokio::test]
async fn one_event_has_us_ask_for_few_states() {
    let net = Net::default();
    let (a, _b, id) = shared(&net).await;
    let from = server_name!("b.example");
    let mut budget = Budget { events: 100, states: STATES, ..Budget::default() };
    for previous in [20, STATES, 1] {
        let prev: Vec<String> = (0..previous).map(|n| format!("${n:A>43}")).collect();
        let event = json!({
            "type": "m.room.message", "sender": BOB, "room_id": id, "content": {}, "depth": 50,
            "origin_server_ts": 1_000, "prev_events": prev, "auth_events": [],
        });
        let proven = proven(&a, serde_json::from_value(event).unwrap()).await;
        assert!(Checked::from_handshake(from, proven).complete(&a.0, &mut budget).await.is_err());
        assert!(*net.states.lock() <= STATES, "{} after one with {previous}", net.states.lock());
    }
}

#[tokio::test]
async fn what_is_stored_with_the_state_around_it_has_nobody_asked_again() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let last = say(&b, BOB, &id, "last").await;
    let mut event = parsed(&b, &id, &last).await;
    event.insert("prev_events".to_owned(), json!([format!("${}", "A".repeat(43))]).try_into().unwrap());
    let proven = proven(&a, event).await;
    a.0.store_outliers(&id, Outliers::from(vec![proven.clone()])).await.unwrap();
    let now = a.view(&id).await.unwrap().head.state;
    amend(&a, &id, proven.pdu().event_id(), |meta| (meta.before, meta.after) = (now, now)).await;
    let checked = Checked::from_handshake(server_name!("b.example"), proven);
    assert!(checked.complete(&a.0, &mut Budget::default()).await.is_ok());
}

#[tokio::test]
async fn what_was_refused_for_want_of_its_text_is_taken_once_it_is_whole() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let (said, whole, given) = blanked(&a, &b, &id).await;
    b.0.store_outliers(&id, Outliers::from(vec![given])).await.unwrap();
    amend(&b, &id, &said, |meta| meta.status = Status::Rejected).await;
    send(&whole, &b).await;
    assert_eq!(status(&b, &id, &said).await, Status::Accepted);
    assert_eq!(bodies(&b, &id).await, ["whole"]);
}

#[tokio::test]
async fn what_somebody_gave_without_its_text_is_whole_once_its_own_server_sends_it() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    for has_place in [true, false] {
        let (said, whole, given) = blanked(&a, &b, &id).await;
        if has_place {
            let given = Checked::from_handshake(server_name!("c.example"), given);
            b.0.take(given, &mut Budget::default()).await.unwrap();
        } else {
            b.0.store_outliers(&id, Outliers::from(vec![given])).await.unwrap();
        }
        assert!(!raw(&b, &id, &said).await.get().contains("whole"));
        send(&whole, &b).await;
        assert_eq!(raw(&b, &id, &said).await.get(), whole.get());
    }
    assert_eq!(bodies(&b, &id).await, ["whole", "whole"]);
}

#[tokio::test]
async fn levels_that_came_without_a_part_do_not_get_what_their_sender_may_not_say() {
    for (level, is_allowed) in [(100, false), (50, true)] {
        let net = Net::default();
        let (a, _b, id) = shared_power(&net).await;
        let power = whole_state(&a, &id).await[&("m.room.power_levels".to_owned(), String::new())].clone();
        let mut content = Value::from(parsed(&a, &id, &power).await.remove("content").unwrap());
        content["notifications"] = json!({ "room": level });
        let levels = json!({ "type": "m.room.power_levels", "state_key": "", "content": content });
        let whole = by_bob(&a, &id, ("m.room.member", BOB), &levels).await;
        let event = push(&a, &emptied(&whole).to_raw()).await;
        assert_eq!(status(&a, &id, &event).await, Status::Accepted);
        push(&a, &whole).await;
        let said = raw(&a, &id, &event).await;
        assert_eq!(said.get().contains("notifications"), is_allowed, "{level}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_without_its_text_gets_it_if_the_policy_server_wants_it() {
    let net = Net::default();
    let (a, _b, id) = shared_power(&net).await;
    let judge = net.server("p.fr", 3);
    let via = vec![a.server().to_owned()];
    judge.join(&actor("@judge:p.fr"), &id, via, serde_json::Map::new()).await.unwrap();
    net.deliver().await;
    let asked = policy_server(&net, key());
    let named = state("m.room.policy", "", &names("p.fr", &key()));
    a.send(&actor(ALICE), &id, named, None).await.unwrap();
    for (body, is_wanted) in [("spam", false), ("ham", true)] {
        let said = json!({ "type": "m.room.message", "content": { "msgtype": "m.text", "body": body } });
        let whole = by_bob(&a, &id, ("m.room.policy", ""), &said).await;
        let before = asked.load(Relaxed);
        let event = push(&a, &emptied(&whole).to_raw()).await;
        assert_eq!(status(&a, &id, &event).await, Status::Accepted);
        for _ in 0..3 {
            push(&a, &whole).await;
            assert_eq!(asked.load(Relaxed) - before, 2, "{body}: it is asked again");
        }
        assert_eq!(bodies(&a, &id).await.contains(&body.to_owned()), is_wanted, "{body}");
        if !is_wanted {
            advance(Duration::from_mins(11)).await;
            push(&a, &whole).await;
            assert_eq!(asked.load(Relaxed) - before, 3);
        }
    }
}

#[tokio::test]
async fn a_policy_server_is_heard_once_the_event_that_names_it_is_whole() {
    let net = Net::default();
    let (a, b, id) = shared(&net).await;
    let named = state("m.room.policy", "", &names("a.example", &key()));
    let named = a.send(&actor(ALICE), &id, named, None).await.unwrap();
    let whole = raw(&a, &id, &named).await;
    let is_heard = async || Desk::open(&b.0, &id).await.unwrap().policy_server().await.unwrap().is_some();
    send(&emptied(&whole).to_raw(), &b).await;
    assert!(!is_heard().await);
    send(&whole, &b).await;
    assert!(is_heard().await);
}
