//! Invites from outside that end while something else happens, and clients that do not wait for the end.

use std::{sync::Arc, time::Duration};

use chappe_store::{Membership, Tx, out_of_band::OutOfBand};
use ruma::{OwnedRoomId, RoomId, server_name};
use serde_json::{Map, json};
use tokio::{sync::Notify, time::timeout};

use super::net::{ALICE, BOB, CAROL, Net, actor, join, membership, room, user};
use crate::{Change, Error, Rooms};

async fn noted(rooms: &Rooms, id: &RoomId) -> Option<OutOfBand> {
    rooms.store().read().out_of_band(&user(BOB), id).await.unwrap().map(|at| at.value.0)
}

async fn kind(rooms: &Rooms, id: &RoomId) -> Option<Membership> {
    noted(rooms, id).await.and_then(|noted| noted.kind())
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
    let first = noted(&b, &id).await.unwrap().event_id;
    let (wires, room) = (net.clone(), id.clone());
    let invites = async move {
        invite_anew(&a, &room).await;
        wires.down.lock().insert(server_name!("a.example").to_owned());
    };
    net.before.lock().insert("make_leave", Box::pin(invites));
    let left = b.leave(&actor(BOB), &id, None).await;
    assert!(matches!(left, Err(Error::Retry)), "{left:?}");
    let now = noted(&b, &id).await.unwrap();
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
async fn what_was_noted_once_does_not_hide_that_somebody_is_in() {
    let net = Net::default();
    let (_a, b, id) = invited(&net).await;
    let stale = OutOfBand { membership: "leave".to_owned(), ..noted(&b, &id).await.unwrap() };
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
