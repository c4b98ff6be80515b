//! The access rules and the network's list where events come late, at the same time, or with a room whose members follow.

use chappe_kv::{Db, Memory};
use chappe_rules::{Pdu, access::Access};
use chappe_store::{Status, Tx, out_of_band::OutOfBand};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, room_alias_id, room_version_rules::RoomVersionRules, server_name,
};
use serde_json::{Map, Value, json};
use tokio::sync::Barrier;

use super::{
    hostile::{by_bob, emptied, push, shared_power},
    net::{
        ALICE, BOB, CAROL, Net, actor, bodies, membership, room, say, state, status, stored, user,
        whole_state,
    },
    partial::{Lie, at, tell},
};
use crate::{Change, Config, Error, Invitation, PeerError, Rooms, receive::Outliers};

const ANNE: &str = "@anne:a.example";
const DAN: &str = "@dan:c.example";
const RULES: &str = "im.vector.room.access_rules";

/// A server that keeps the rules of the network.
fn strict(net: &Net, name: &str, seed: u8) -> Rooms {
    let config = Config { access: Some(Access::default().into()), ..Config::default() };
    net.server_with(name, seed, Db::new(Memory::default()), config)
}

fn named(name: &str) -> OwnedServerName {
    name.try_into().unwrap()
}

async fn join(rooms: &Rooms, who: &str, id: &RoomId, through: &str) -> Result<(), Error> {
    rooms.join(&actor(who), id, vec![named(through)], Map::new()).await
}

/// A room of Alice, whose server keeps no rules, that says to be a direct chat.
async fn chat(a: &Rooms, more: Value) -> OwnedRoomId {
    let mut body = json!({
        "preset": "trusted_private_chat", "name": "Salon",
        "initial_state": [{ "type": RULES, "content": { "rule": "direct" } }],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    room(a, ALICE, body).await
}

/// Lets everybody into Alice's room.
async fn open(a: &Rooms, id: &RoomId) {
    let rule = json!({ "join_rule": "public" });
    a.send(&actor(ALICE), id, state("m.room.join_rules", "", &rule), None).await.unwrap();
}

#[tokio::test]
async fn what_outsiders_said_before_is_left_out_and_what_was_before_that_is_not() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    net.unlisted.lock().insert((named("b.example"), named("c.example")));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    say(&a, ALICE, &id, "first").await;
    join(&c, CAROL, &id, "a.example").await.unwrap();
    for body in ["outside", "outside again"] {
        say(&c, CAROL, &id, body).await;
    }
    net.deliver().await;
    say(&a, ALICE, &id, "last").await;
    a.change(&actor(ALICE), &id, &user(CAROL), Change::Kick, None).await.unwrap();
    net.deliver().await;
    join(&b, BOB, &id, "a.example").await.unwrap();
    while b.fetch_older(&id, 1).await.unwrap() > 0 {}
    assert_eq!(bodies(&b, &id).await, ["first", "last"]);
}

#[tokio::test]
async fn what_came_without_naming_outsiders_does_not_get_to_name_them() {
    let aliases = json!({ "alias": "#salon:x.example" });
    let policy = json!({ "via": "x.example", "public_keys": { "ed25519": "A".repeat(43) } });
    for (kind, content) in [("m.room.canonical_alias", aliases), ("m.room.policy", policy)] {
        let net = Net::default();
        let (a, _b, id) = shared_power(&net).await;
        net.unlisted.lock().insert((named("a.example"), named("x.example")));
        let said = json!({ "type": kind, "state_key": "", "content": content });
        let whole = by_bob(&a, &id, ("m.room.member", BOB), &said).await;
        let event = push(&a, &emptied(&whole).to_raw()).await;
        assert_eq!(at(&whole_state(&a, &id).await, kind, ""), event);
        push(&a, &whole).await;
        assert!(!stored(&a, &id, &event).await.contains("x.example"), "{kind}");
        // Once they are of the network they may be named.
        net.unlisted.lock().clear();
        push(&a, &whole).await;
        assert!(stored(&a, &id, &event).await.contains("x.example"), "{kind}");
    }
}

/// It was heard of before as what another event rests on, which no access rule is asked about.
#[tokio::test]
async fn what_comes_without_what_it_says_is_judged_by_that_where_it_is_known() {
    let net = Net::default();
    let (a, _b, id) = shared_power(&net).await;
    net.unlisted.lock().insert((named("a.example"), named("x.example")));
    let said = json!({ "type": "m.room.canonical_alias", "state_key": "", "content": { "alias": "#salon:x.example" } });
    let whole = by_bob(&a, &id, ("m.room.member", BOB), &said).await;
    let pdu = Pdu::parse(&RoomVersionRules::V11, whole.get().as_bytes()).unwrap();
    let proven = a.0.check_one(&RoomVersionRules::V11, pdu).await.unwrap();
    a.0.store_outliers(&id, Outliers::from(vec![proven])).await.unwrap();
    let event = push(&a, &emptied(&whole).to_raw()).await;
    assert_eq!(status(&a, &id, &event).await, Status::SoftFailed);
    assert!(!whole_state(&a, &id).await.contains_key(&("m.room.canonical_alias".to_owned(), String::new())));
}

#[tokio::test]
async fn of_two_invites_into_a_direct_chat_at_the_same_time_one_counts() {
    let net = Net::default();
    let a = strict(&net, "a.example", 1);
    let _others = (net.server("b.example", 2), net.server("c.example", 3));
    let id = room(&a, ALICE, json!({ "preset": "trusted_private_chat", "is_direct": true })).await;
    *net.invites_meet.lock() = Some(std::sync::Arc::new(Barrier::new(2)));
    let alice = actor(ALICE);
    let (bob, carol) = (user(BOB), user(CAROL));
    let invite = |whom| a.change(&alice, &id, whom, Change::Invite, None);
    let (one, other) = tokio::join!(invite(&bob), invite(&carol));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert!(matches!(one.and(other), Err(Error::Forbidden(_))));
    let there = [membership(&a, &id, BOB).await, membership(&a, &id, CAROL).await];
    assert!(there == [Some("invite"), None] || there == [None, Some("invite")], "{there:?}");
}

#[tokio::test(start_paused = true)]
async fn a_third_person_leaves_a_direct_chat_once_its_members_are_known() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), strict(&net, "c.example", 3));
    let id = chat(&a, json!({ "invite": [BOB, CAROL] })).await;
    join(&b, BOB, &id, "a.example").await.unwrap();
    *net.partial_joins.lock() = true;
    net.silent.lock().insert(named("a.example"));
    join(&c, CAROL, &id, "a.example").await.unwrap();
    assert_eq!(membership(&c, &id, CAROL).await, Some("join"));
    net.silent.lock().clear();
    c.0.try_complete(&id).await.unwrap();
    assert_eq!(membership(&c, &id, CAROL).await, Some("leave"));
    net.deliver().await;
    assert_eq!(membership(&a, &id, CAROL).await, Some("leave"), "the others are told");
    assert_eq!(membership(&a, &id, BOB).await, Some("join"));
}

/// Dan enters by a join that counts elsewhere, whatever this server makes of it later.
#[tokio::test(start_paused = true)]
async fn who_is_not_let_in_leaves_elsewhere_too_and_the_others_go_on() {
    let net = Net::default();
    let (a, c) = (net.server("a.example", 1), strict(&net, "c.example", 3));
    let id = chat(&a, json!({ "invite": [CAROL] })).await;
    open(&a, &id).await;
    *net.partial_joins.lock() = true;
    net.silent.lock().insert(named("a.example"));
    join(&c, CAROL, &id, "a.example").await.unwrap();
    join(&c, DAN, &id, "a.example").await.unwrap();
    net.deliver().await;
    net.silent.lock().clear();
    c.0.try_complete(&id).await.unwrap();
    net.deliver().await;
    for rooms in [&a, &c] {
        assert_eq!(membership(rooms, &id, DAN).await, Some("leave"));
        assert_eq!(membership(rooms, &id, CAROL).await, Some("join"));
    }
    say(&c, CAROL, &id, "still here").await;
    net.deliver().await;
    assert_eq!(bodies(&a, &id).await, ["still here"]);
    assert_eq!(whole_state(&a, &id).await, whole_state(&c, &id).await);
}

/// Carol's join rests on power levels that what Bob said beside it does not know: a leave that rested on Bob's words alone
/// would be undone by the join.
#[tokio::test(start_paused = true)]
async fn who_is_not_let_in_leaves_elsewhere_whatever_was_said_beside() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), strict(&net, "c.example", 3));
    let id = chat(&a, json!({ "invite": [BOB], "room_version": "11" })).await;
    open(&a, &id).await;
    join(&b, BOB, &id, "a.example").await.unwrap();
    say(&b, BOB, &id, "one").await;
    net.deliver().await;
    say(&b, BOB, &id, "two").await;
    net.deliver().await;
    let levels = json!({ "users": { ALICE: 100, BOB: 100 }, "events_default": 1, "users_default": 1 });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    *net.partial_joins.lock() = true;
    net.silent.lock().insert(named("a.example"));
    join(&c, CAROL, &id, "a.example").await.unwrap();
    // Bob's server hears of the rest only after he spoke.
    let beside = say(&b, BOB, &id, "beside").await;
    net.deliver().await;
    let beside = b.event_for(server_name!("c.example"), &beside).await.unwrap();
    c.receive(server_name!("b.example"), vec![beside]).await.pop().unwrap().result.unwrap();
    assert_eq!(c.view(&id).await.unwrap().head.extremities.len(), 2);
    net.silent.lock().clear();
    c.0.try_complete(&id).await.unwrap();
    net.deliver().await;
    for rooms in [&a, &b, &c] {
        assert_eq!(membership(rooms, &id, CAROL).await, Some("leave"));
        assert_eq!(whole_state(rooms, &id).await, whole_state(&a, &id).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_whose_members_turn_out_to_be_outsiders_is_left() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    net.unlisted.lock().insert((named("c.example"), named("b.example")));
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "name": "Salon" })).await;
    join(&b, BOB, &id, "a.example").await.unwrap();
    *net.partial_joins.lock() = true;
    net.silent.lock().insert(named("a.example"));
    let hide = |mut answer: crate::JoinAnswer| {
        answer.servers_in_room = Some(vec!["a.example".to_owned()]);
        answer
    };
    *net.twist.lock() = Some(std::sync::Arc::new(hide));
    join(&c, CAROL, &id, "a.example").await.unwrap();
    c.join(&actor(DAN), &id, vec![named("a.example")], Map::new()).await.unwrap();
    net.silent.lock().clear();
    c.0.try_complete(&id).await.unwrap();
    net.deliver().await;
    for who in [CAROL, DAN] {
        assert_eq!(membership(&c, &id, who).await, Some("leave"), "{who}");
        assert_eq!(membership(&a, &id, who).await, Some("leave"), "{who}");
    }
}

/// Bob's server gets the invite of Bob once more, with this state of the room.
async fn invited_with((a, b): (&Rooms, &Rooms), id: &RoomId, told: &[(&str, &str)]) -> Result<(), Error> {
    let view = a.view(id).await.unwrap();
    let current = async |kind: &str, key: &str| view.current(kind.into(), key).await.unwrap().unwrap().pdu;
    let invite = current("m.room.member", BOB).await;
    let mut room_state = Vec::new();
    for (kind, key) in told {
        room_state.push(current(kind, key).await.to_raw());
    }
    let invitation =
        Invitation { room_version: view.head.version.clone(), event: invite.to_raw(), room_state };
    b.accept_invite(server_name!("a.example"), id, invite.event_id(), invitation).await.map(drop)
}

#[tokio::test]
async fn an_invite_that_tells_of_two_others_or_of_outsiders_is_refused() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), strict(&net, "b.example", 2));
    let _c = net.server("c.example", 3);
    let id = chat(&a, json!({ "invite": [BOB, ANNE, CAROL] })).await;
    let (rules, alice) = ((RULES, ""), ("m.room.member", ALICE));
    let told = async |told: &[(&str, &str)]| invited_with((&a, &b), &id, told).await;
    told(&[rules, alice, ("m.room.member", BOB)]).await.unwrap();
    let third = told(&[rules, alice, ("m.room.member", ANNE)]).await;
    assert!(matches!(third, Err(Error::Forbidden(_))), "{third:?}");
    net.unlisted.lock().insert((named("b.example"), named("c.example")));
    let outside = told(&[alice, ("m.room.member", CAROL)]).await;
    assert!(matches!(outside, Err(Error::Outsiders(_))), "{outside:?}");
    net.unlisted.lock().insert((named("b.example"), named("a.example")));
    let by_outsider = told(&[alice]).await;
    assert!(matches!(by_outsider, Err(Error::Forbidden(_))), "{by_outsider:?}");
}

#[tokio::test]
async fn a_no_of_one_server_ends_no_search_for_a_way_in() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let id = room(&a, ALICE, json!({ "preset": "private_chat", "invite": [BOB] })).await;
    join(&b, BOB, &id, "a.example").await.unwrap();
    open(&a, &id).await;
    net.lose(&a, "b.example").await;
    let via = |names: &[&str]| names.iter().map(|name| named(name)).collect::<Vec<_>>();
    let refused = c.join(&actor(CAROL), &id, via(&["b.example"]), Map::new()).await;
    let forbidden = |errcode: &str| errcode == "M_FORBIDDEN";
    assert!(
        matches!(&refused, Err(Error::Peer(PeerError::Refused { errcode, .. })) if forbidden(errcode)),
        "{refused:?}"
    );
    // One that has not heard the news, or does not know the room, speaks for itself alone.
    net.server("d.example", 4);
    c.join(&actor(CAROL), &id, via(&["b.example", "d.example", "a.example"]), Map::new()).await.unwrap();
}

#[tokio::test]
async fn who_cannot_leave_gives_no_power_away() {
    let net = Net::default();
    let a = strict(&net, "a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "private_chat", "room_version": "11" })).await;
    a.change(&actor(ALICE), &id, &user(ANNE), Change::Invite, None).await.unwrap();
    a.join(&actor(ANNE), &id, Vec::new(), Map::new()).await.unwrap();
    let (alice, anne) = (actor(ALICE), actor(ANNE));
    let levels = async || {
        let view = a.view(&id).await.unwrap();
        view.current("m.room.power_levels".into(), "").await.unwrap().unwrap().pdu.event_id().to_owned()
    };
    let before = levels().await;
    let leave = a.leave(&alice, &id, Some("x".repeat(70_000)));
    let talk = a.send(&anne, &id, super::net::text("meanwhile"), None);
    let (leave, talk) = tokio::join!(leave, talk);
    assert!(matches!(leave, Err(Error::TooLarge(_))), "{leave:?}");
    talk.unwrap();
    assert_eq!(levels().await, before);
    a.leave(&alice, &id, None).await.unwrap();
    assert_ne!(levels().await, before);
}

#[tokio::test]
async fn invites_that_were_refused_make_no_room_for_a_third_person() {
    let net = Net::default();
    let (a, b) = (strict(&net, "a.example", 1), net.server("b.example", 2));
    let body = json!({
        "preset": "trusted_private_chat", "is_direct": true, "room_version": "11", "invite": [BOB],
    });
    let id = room(&a, ALICE, body).await;
    join(&b, BOB, &id, "a.example").await.unwrap();
    net.deliver().await;
    let before = whole_state(&a, &id).await;
    let bob = at(&before, "m.room.member", BOB);
    let shared = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
    let auth: Vec<_> = shared.iter().map(|kind| at(&before, kind, "")).chain([bob.clone()]).collect();
    let invite = async |whom: &str| {
        let (kind, key) = ("m.room.member", Some(whom));
        let content = json!({ "membership": "invite" });
        tell(&a, &id, Lie { sender: BOB, kind, key, content, prev: bob.clone(), auth: auth.clone() }).await
    };
    // All of them come before those who are there.
    for number in 0..100 {
        invite(&format!("@{number:04}:c.example")).await;
    }
    let third = invite(CAROL).await;
    assert_eq!(status(&a, &id, &third).await, Status::SoftFailed);
    assert_eq!(whole_state(&a, &id).await, before);
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    assert_eq!(membership(&a, &id, BOB).await, Some("leave"));
}

#[tokio::test]
async fn what_comes_while_there_is_no_network_is_judged_when_there_is_one() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    join(&b, BOB, &id, "a.example").await.unwrap();
    net.deliver().await;
    let said = say(&b, BOB, &id, "said").await;
    let said = b.event_for(server_name!("a.example"), &said).await.unwrap();
    let take = async || a.receive(server_name!("b.example"), vec![said.clone()]).await.pop().unwrap().result;
    net.close("a.example");
    let waits = take().await;
    assert!(matches!(waits, Err(Error::Unreachable)), "{waits:?}");
    net.open("a.example");
    take().await.unwrap();
    assert_eq!(bodies(&a, &id).await, ["said"]);
}

#[tokio::test(start_paused = true)]
async fn a_room_is_not_left_because_there_is_no_network_when_its_members_come() {
    let net = Net::default();
    let (a, c) = (net.server("a.example", 1), net.server("c.example", 3));
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "name": "Salon" })).await;
    *net.partial_joins.lock() = true;
    net.silent.lock().insert(named("a.example"));
    join(&c, CAROL, &id, "a.example").await.unwrap();
    net.deliver().await;
    say(&a, ALICE, &id, "said meanwhile").await;
    net.deliver().await;
    net.silent.lock().clear();
    let nid = c.view(&id).await.unwrap().nid;
    let partial = c.store().read().partial_room(nid).await.unwrap().unwrap();
    c.0.fetch_state_before(server_name!("a.example"), &id, &partial).await.unwrap();
    net.close("c.example");
    let waits = c.0.try_complete(&id).await;
    assert!(matches!(waits, Err(Error::Unreachable)), "{waits:?}");
    net.open("c.example");
    c.0.try_complete(&id).await.unwrap();
    assert_eq!(membership(&c, &id, CAROL).await, Some("join"));
    assert_eq!(bodies(&c, &id).await, ["said meanwhile"]);
}

#[tokio::test]
async fn externals_know_of_a_room_once_they_are_asked_into_it() {
    const PAUL: &str = "@paul:e.example";
    let net = Net::default();
    let with_externals = |name: &str, seed: u8| {
        let access = Access { externals: vec![named("e.example")], ..Access::default() };
        let config = Config { access: Some(access.into()), ..Config::default() };
        net.server_with(name, seed, Db::new(Memory::default()), config)
    };
    let (a, e) = (with_externals("a.example", 1), with_externals("e.example", 5));
    // A server without rules tells everybody.
    let o = net.server("o.example", 6);
    let readable = json!({ "history_visibility": "world_readable" });
    let readable = json!({ "type": "m.room.history_visibility", "content": readable });
    let open = json!({ "type": RULES, "content": { "rule": "unrestricted" } });
    let initial = [readable, open];
    let body = json!({ "preset": "private_chat", "room_alias_name": "salon", "initial_state": initial });
    let id = room(&a, ALICE, body).await;
    let elsewhere = room(&o, "@olga:o.example", json!({ "preset": "public_chat" })).await;
    let salon = room_alias_id!("#salon:a.example");
    let tree = async |asker: &Rooms| a.hierarchy_for(asker.server(), &id, false).await;
    let alias = async |asker: &Rooms| a.alias_for(asker.server(), salon).await;
    let paul = user(PAUL);
    let summary = async |id: &RoomId, via: &str| e.room_summary(Some(&paul), id, &[named(via)]).await;
    assert!(tree(&o).await.is_ok() && alias(&o).await.is_ok(), "others may read it");
    assert!(matches!(tree(&e).await, Err(Error::NotFound(_))));
    assert!(matches!(alias(&e).await, Err(Error::NotFound(_))));
    assert!(matches!(summary(&id, "a.example").await, Err(Error::NotFound(_))));
    assert!(matches!(summary(&elsewhere, "o.example").await, Err(Error::NotFound(_))), "whoever tells of it");
    a.change(&actor(ALICE), &id, &paul, Change::Invite, None).await.unwrap();
    assert!(tree(&e).await.is_ok() && alias(&e).await.is_ok());
    assert!(summary(&id, "a.example").await.is_ok());
    // What is noted of a room is not always that somebody is asked into it.
    let invite = e.store().read().out_of_band(&paul, &id).await.unwrap().unwrap().value.0;
    for (membership, knows) in [("leave", false), ("ban", false), ("knock", true), ("invite", true)] {
        let noted = OutOfBand { membership: membership.to_owned(), ..invite.clone() };
        let mut tx = Tx::new();
        tx.put_out_of_band(&paul, &elsewhere, &noted);
        e.store().commit(tx).await.unwrap();
        assert_eq!(summary(&elsewhere, "o.example").await.is_ok(), knows, "{membership}");
    }
}
