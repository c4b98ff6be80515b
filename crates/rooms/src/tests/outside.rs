//! Invites from outside that end while something else happens, and clients that do not wait for the end.

use std::{sync::Arc, time::Duration};

use chappe_accounts::Scope;
use chappe_store::{Membership, Tx, out_of_band::OutOfBand};
use ruma::{OwnedRoomId, RoomId, server_name};
use serde_json::{Map, json, value::to_raw_value};
use tokio::{sync::Notify, time::timeout};

use super::net::{ALICE, BOB, CAROL, Net, actor, join, membership, noted, room, state, user};
use crate::{Change, Error, Result, Rooms};

async fn kind(rooms: &Rooms, id: &RoomId) -> Option<Membership> {
    noted(rooms, id, BOB).await.and_then(|noted| noted.kind())
}

/// A room of `a` that Bob of `b` is invited to and Carol of `c` is in.
async fn invited(net: &Net) -> (Rooms, Rooms, OwnedRoomId) {
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    join(&c, CAROL, &id).await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    net.deliver().await;
    assert_eq!(kind(&b, &id).await, Some(Membership::Invite));
    (a, b, id)
}

async fn invite_anew(a: &Rooms, id: &RoomId) {
    a.change(&actor(ALICE), id, &user(BOB), Change::Kick, None).await.unwrap();
    a.change(&actor(ALICE), id, &user(BOB), Change::Invite, None).await.unwrap();
}

#[tokio::test]
async fn who_comes_in_while_the_invite_is_turned_down_is_in() {
    let net = Net::default();
    let (_a, b, id) = invited(&net).await;
    net.down.lock().insert(server_name!("a.example").to_owned());
    let (entering, room) = (b.clone(), id.clone());
    let enters = async move {
        let via = vec![server_name!("c.example").to_owned()];
        entering.join(&actor(BOB), &room, via, Map::new()).await.unwrap();
    };
    net.before.lock().insert("make_leave", Box::pin(enters));
    let left = b.leave(&actor(BOB), &id, None).await;
    assert!(matches!(left, Err(Error::Retry)), "{left:?}");
    assert_eq!((kind(&b, &id).await, membership(&b, &id, BOB).await), (None, Some("join")));
    b.leave(&actor(BOB), &id, None).await.unwrap();
    assert_eq!(membership(&b, &id, BOB).await, Some("leave"));
}

#[tokio::test]
async fn an_invite_that_comes_while_another_is_turned_down_stays() {
    let net = Net::default();
    let (a, b, id) = invited(&net).await;
    let first = noted(&b, &id, BOB).await.unwrap().event_id;
    let (wires, room) = (net.clone(), id.clone());
    let invites = async move {
        invite_anew(&a, &room).await;
        wires.down.lock().insert(server_name!("a.example").to_owned());
    };
    net.before.lock().insert("make_leave", Box::pin(invites));
    let left = b.leave(&actor(BOB), &id, None).await;
    assert!(matches!(left, Err(Error::Retry)), "{left:?}");
    let now = noted(&b, &id, BOB).await.unwrap();
    assert_eq!(now.kind(), Some(Membership::Invite));
    assert_ne!(now.event_id, first);
    b.leave(&actor(BOB), &id, None).await.unwrap();
    assert_eq!(kind(&b, &id).await, Some(Membership::Leave));
}

#[tokio::test]
async fn an_invite_that_comes_while_the_end_of_another_is_checked_stays() {
    let net = Net::default();
    let (a, b, id) = invited(&net).await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Kick, None).await.unwrap();
    let room = id.clone();
    let invites = async move {
        a.change(&actor(ALICE), &room, &user(BOB), Change::Invite, None).await.unwrap();
    };
    net.before.lock().insert("keys", Box::pin(invites));
    net.deliver().await;
    assert!(net.before.lock().is_empty());
    assert_eq!(kind(&b, &id).await, Some(Membership::Invite));
}

#[tokio::test]
async fn an_invite_from_when_somebody_was_still_in_the_room_is_withdrawn() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let (id, bert) = (room(&a, ALICE, json!({ "preset": "public_chat" })).await, "@bert:b.example");
    join(&b, bert, &id).await;
    net.deliver().await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    net.deliver().await;
    b.leave(&actor(bert), &id, None).await.unwrap();
    net.deliver().await;
    assert_eq!((kind(&b, &id).await, membership(&b, &id, BOB).await), (None, Some("invite")));
    // What justifies it by then is not known there.
    let levels = json!({ "users": { ALICE: 100 }, "events_default": 1 });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    a.change(&actor(ALICE), &id, &user(BOB), Change::Kick, Some("no".to_owned())).await.unwrap();
    net.deliver().await;
    assert_eq!((kind(&b, &id).await, membership(&b, &id, BOB).await), (Some(Membership::Leave), None));
    assert!(noted(&b, &id, BOB).await.unwrap().event.get().contains("\"reason\":\"no\""));
    invite((&a, ALICE), &id).await.unwrap();
    b.join(&actor(BOB), &id, Vec::new(), Map::new()).await.unwrap();
    assert_eq!((kind(&b, &id).await, membership(&b, &id, BOB).await), (None, Some("join")));
}

#[tokio::test]
async fn what_was_noted_once_does_not_hide_that_somebody_is_in() {
    let net = Net::default();
    let (_a, b, id) = invited(&net).await;
    let stale = OutOfBand { membership: "leave".to_owned(), ..noted(&b, &id, BOB).await.unwrap() };
    b.join(&actor(BOB), &id, Vec::new(), Map::new()).await.unwrap();
    let mut tx = Tx::new();
    tx.put_out_of_band(&user(BOB), &id, &stale);
    b.store().commit(tx).await.unwrap();
    let forgotten = b.forget(&user(BOB), &id).await;
    assert!(matches!(forgotten, Err(Error::BadState(_))), "{forgotten:?}");
    b.leave(&actor(BOB), &id, None).await.unwrap();
    assert_eq!((kind(&b, &id).await, membership(&b, &id, BOB).await), (None, Some("leave")));
    b.forget(&user(BOB), &id).await.unwrap();
}

#[tokio::test]
async fn who_forgets_a_room_has_left_it_altogether() {
    let net = Net::default();
    let (a, b, id) = invited(&net).await;
    b.join(&actor(BOB), &id, Vec::new(), Map::new()).await.unwrap();
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    b.leave(&actor(BOB), &id, None).await.unwrap();
    assert_eq!(kind(&b, &id).await, Some(Membership::Leave));
    b.forget(&user(BOB), &id).await.unwrap();
    assert!(b.store().read().user_rooms(&user(BOB)).await.unwrap().is_empty());
}

/// Has something happen once keys are looked for the second time: the first ones are those of the event that is sent.
fn at_second_keys(net: &Net, what: impl Future<Output = ()> + Send + 'static) {
    let wires = net.clone();
    let then = async move {
        wires.before.lock().insert("keys", Box::pin(what));
    };
    net.before.lock().insert("keys", Box::pin(then));
}

#[tokio::test]
async fn an_invite_that_answers_a_knock_at_once_stays() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let id = room(&a, ALICE, json!({ "initial_state": [rule] })).await;
    let at = id.clone();
    at_second_keys(&net, async move {
        a.change(&actor(ALICE), &at, &user(BOB), Change::Invite, None).await.unwrap();
    });
    b.knock(&actor(BOB), &id, vec![server_name!("a.example").to_owned()], None).await.unwrap();
    assert!(net.before.lock().is_empty());
    assert_eq!(kind(&b, &id).await, Some(Membership::Invite));
}

#[tokio::test]
async fn who_comes_in_while_an_invite_is_looked_at_is_in_and_not_invited() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "room_version": "12" })).await;
    let (entering, at) = (b.clone(), id.clone());
    at_second_keys(&net, async move {
        let via = vec![server_name!("a.example").to_owned()];
        entering.join(&actor(BOB), &at, via, Map::new()).await.unwrap();
    });
    let refused = a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(net.before.lock().is_empty());
    assert_eq!((kind(&b, &id).await, membership(&b, &id, BOB).await), (None, Some("join")));
}

/// Has the next question of this kind wait; tells that it was asked, and lets it go on.
fn hold(net: &Net, what: &'static str) -> (Arc<Notify>, Arc<Notify>) {
    let (asked, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tells, waits) = (asked.clone(), gate.clone());
    let held = async move {
        tells.notify_one();
        waits.notified().await;
    };
    net.before.lock().insert(what, Box::pin(held));
    (asked, gate)
}

/// Waits for a request no longer than until another server is asked.
async fn hang_up<T>(request: impl Future<Output = T>, asked: &Notify) {
    tokio::select! {
        _ = request => panic!("there is an answer already"),
        () = asked.notified() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_invite_is_turned_down_though_nobody_waits_for_it_or_answers() {
    let net = Net::default();
    let (a, b, id) = invited(&net).await;
    let (asked, gate) = hold(&net, "make_leave");
    hang_up(b.leave(&actor(BOB), &id, None), &asked).await;
    let mut commits = b.store().visible();
    gate.notify_one();
    while kind(&b, &id).await != Some(Membership::Leave) {
        timeout(Duration::from_mins(1), commits.changed()).await.unwrap().unwrap();
    }

    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    assert_eq!(kind(&b, &id).await, Some(Membership::Invite));
    let (_asked, _gate) = hold(&net, "make_leave");
    timeout(Duration::from_mins(1), b.leave(&actor(BOB), &id, None)).await.unwrap().unwrap();
    assert_eq!(kind(&b, &id).await, Some(Membership::Leave));
}

#[tokio::test(start_paused = true)]
async fn who_was_invited_is_invited_though_nobody_waits_for_it() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({})).await;
    let (asked, gate) = hold(&net, "invite");
    hang_up(a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None), &asked).await;
    let mut commits = a.store().visible();
    gate.notify_one();
    while membership(&a, &id, BOB).await != Some("invite") {
        timeout(Duration::from_mins(1), commits.changed()).await.unwrap().unwrap();
    }
    assert_eq!(kind(&b, &id).await, Some(Membership::Invite));
}

/// What may be noted of Bob in a room of a server that is not there.
fn elsewhere(membership: &str, by: &str) -> OutOfBand {
    let member = json!({
        "type": "m.room.member", "sender": by, "state_key": BOB, "content": { "membership": membership },
        "room_id": "!noted:d.example", "depth": 9, "origin_server_ts": 1, "prev_events": [], "auth_events": [],
    });
    OutOfBand {
        membership: membership.to_owned(),
        event: to_raw_value(&member).unwrap(),
        event_id: "$noted".to_owned(),
        state: Vec::new(),
        version: Some("11".to_owned()),
        via: Vec::new(),
        number: None,
    }
}

/// Notes the same in so many rooms.
async fn note(rooms: &Rooms, name: &str, count: usize, what: &OutOfBand) -> Vec<OwnedRoomId> {
    let id = |n| RoomId::parse(format!("!{name}{n}:d.example")).unwrap();
    let ids: Vec<OwnedRoomId> = (0..count).map(id).collect();
    let mut tx = Tx::new();
    for id in &ids {
        tx.put_out_of_band(&user(BOB), id, what);
    }
    rooms.store().commit(tx).await.unwrap();
    ids
}

async fn invite((rooms, by): (&Rooms, &str), id: &RoomId) -> Result<()> {
    rooms.change(&actor(by), id, &user(BOB), Change::Invite, None).await
}

fn is_one_too_many(invited: &Result<()>) -> bool {
    invited.as_ref().is_err_and(|error| error.to_string().contains("too many invites"))
}

#[tokio::test]
async fn so_many_invites_wait_and_an_answer_makes_place_for_one_more() {
    let net = Net::default();
    let (a, b, id) = invited(&net).await;
    note(&b, "d", 249, &elsewhere("invite", "@x:a.example")).await;
    let mut more = Vec::new();
    for _ in 0..3 {
        more.push(room(&a, ALICE, json!({})).await);
    }
    assert!(is_one_too_many(&invite((&a, ALICE), &more[0]).await));
    assert!(noted(&b, &more[0], BOB).await.is_none());
    invite_anew(&a, &id).await;

    b.leave(&actor(BOB), &id, None).await.unwrap();
    invite((&a, ALICE), &more[0]).await.unwrap();
    assert!(is_one_too_many(&invite((&a, ALICE), &more[1]).await));
    b.join(&actor(BOB), &more[0], Vec::new(), Map::new()).await.unwrap();
    invite((&a, ALICE), &more[1]).await.unwrap();
    assert!(is_one_too_many(&invite((&a, ALICE), &more[2]).await));
}

/// How many invites wait for Bob's answer.
async fn waiting(b: &Rooms) -> usize {
    let list = b.store().read().out_of_band_list(&user(BOB)).await.unwrap();
    list.iter().filter(|(_, at)| at.value.membership == Membership::Invite).count()
}

#[tokio::test]
async fn where_all_places_are_taken_the_oldest_of_whoever_has_most_gives_way() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let (of_a, of_c) = (room(&a, ALICE, json!({})).await, room(&c, CAROL, json!({})).await);
    let of_d = elsewhere("invite", "@x:d.example");
    let few = note(&b, "few", 1, &elsewhere("invite", "@x:f.example")).await;
    let oldest = note(&b, "oldest", 1, &of_d).await;
    note(&b, "d", 249, &of_d).await;
    note(&b, "e", 249, &elsewhere("invite", "@x:e.example")).await;
    invite((&a, ALICE), &of_a).await.unwrap();
    assert_eq!(kind(&b, &of_a).await, Some(Membership::Invite));
    // His clients are told that it is over.
    assert_eq!(kind(&b, &oldest[0]).await, Some(Membership::Leave));
    assert_eq!(kind(&b, &few[0]).await, Some(Membership::Invite));
    assert_eq!(waiting(&b).await, 500);

    // Some that came at the same time.
    note(&b, "more", 5, &of_d).await;
    invite((&c, CAROL), &of_c).await.unwrap();
    assert_eq!(kind(&b, &of_c).await, Some(Membership::Invite));
    assert_eq!(waiting(&b).await, 504);
}

#[tokio::test]
async fn many_servers_with_an_invite_each_keep_no_other_one_out() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let mut noted = Vec::new();
    for n in 0..500 {
        let invite = elsewhere("invite", &format!("@x:s{n}.example"));
        noted.extend(note(&b, &format!("s{n}."), 1, &invite).await);
    }
    let mut more = Vec::new();
    for _ in 0..2 {
        more.push(room(&a, ALICE, json!({})).await);
    }
    invite((&a, ALICE), &more[0]).await.unwrap();
    assert_eq!(kind(&b, &noted[0]).await, Some(Membership::Leave));
    assert_eq!(kind(&b, &noted[1]).await, Some(Membership::Invite));
    // It has as many as everybody else now.
    assert!(is_one_too_many(&invite((&a, ALICE), &more[1]).await));
    assert_eq!(waiting(&b).await, 500);
}

#[tokio::test]
async fn no_server_takes_the_places_of_the_invites_of_all_others() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let (of_a, of_c) = (room(&a, ALICE, json!({})).await, room(&c, CAROL, json!({})).await);
    note(&b, "d", 250, &elsewhere("invite", "@mallory:a.example")).await;
    assert!(is_one_too_many(&invite((&a, ALICE), &of_a).await));
    invite((&c, CAROL), &of_c).await.unwrap();

    let ignored = to_raw_value(&json!({ "ignored_users": { "@mallory:a.example": {} } })).unwrap();
    let kind = "m.ignored_user_list";
    b.0.accounts.set_account_data(&user(BOB), Scope::Global, kind, &ignored).await.unwrap();
    invite((&a, ALICE), &of_a).await.unwrap();
    let list = b.store().read().out_of_band_list(&user(BOB)).await.unwrap();
    assert_eq!(list.len(), 2, "what is shown to nobody gives way");
}

#[tokio::test]
async fn ends_of_invites_keep_little_and_the_oldest_are_forgotten() {
    let net = Net::default();
    let (_a, b, id) = invited(&net).await;
    assert!(!noted(&b, &id, BOB).await.unwrap().state.is_empty());
    let end = elsewhere("leave", BOB);
    let here = note(&b, "here", 1, &OutOfBand { number: Some(7), ..end.clone() }).await;
    let oldest = note(&b, "oldest", 1, &end).await;
    let newer = note(&b, "newer", 999, &end).await;
    b.leave(&actor(BOB), &id, None).await.unwrap();
    let ended = noted(&b, &id, BOB).await.unwrap();
    assert_eq!(ended.kind(), Some(Membership::Leave));
    assert!(ended.state.is_empty());
    assert!(noted(&b, &oldest[0], BOB).await.is_none());
    for id in here.iter().chain(&newer) {
        assert!(noted(&b, id, BOB).await.is_some(), "{id}");
    }
}
