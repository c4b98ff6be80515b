//! Redacted events between servers: lists of servers, and what sticks.

use chappe_rooms::{Draft, Error};
use chappe_store::Tx;
use chappe_world::FakeNet;
use serde_json::json;

use super::{Server, config, couple, eventually};

#[tokio::test(start_paused = true)]
async fn a_list_of_servers_that_is_redacted_lets_nobody_in() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let alice = a.actor("alice");
    let list = json!({ "allow": ["*"] }).as_object().unwrap().clone();
    let list = Draft::state("m.room.server_acl", "", list);
    let list = a.rooms.send(&alice, &room, list, None).await.unwrap();
    let is_let_in = async || a.federation.acl_allows(&b.name, &room).await.unwrap();
    assert!(is_let_in().await);
    let refused = a.rooms.send(&alice, &room, Draft::redaction(&list, None), None).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    // As a server would have it that lets its users do so.
    let by = a.say("alice", &room, "any event").await;
    let reader = a.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let nums = reader.event_nums(nid, &[&list, &by]).await.unwrap();
    let (list, by) = (nums[0].unwrap(), nums[1].unwrap());
    let mut meta = reader.event_meta(nid, list).await.unwrap();
    drop(reader);
    meta.redacted_by = by;
    let mut tx = Tx::new();
    tx.update_event(nid, list, &meta);
    a.store.commit(tx).await.unwrap();
    assert!(!is_let_in().await);
}

#[tokio::test(start_paused = true)]
async fn what_was_redacted_sticks_to_nobody_who_comes_later() {
    let net = FakeNet::new();
    let (a, _b, room) = couple(&net).await;
    let stays = a.stick("alice", &room, "in a call").await;
    let gone = a.stick("alice", &room, "a slip of the pen").await;
    a.rooms.send(&a.actor("alice"), &room, Draft::redaction(&gone, None), None).await.unwrap();
    let c = Server::start(&net, "c.example", 3, config());
    c.join("carol", &room, &a).await;
    eventually("what sticks comes", async || c.has(&stays).await).await;
    eventually("nothing waits", async || a.waiting(&c).await == 0).await;
    assert!(!c.has(&gone).await);
}
