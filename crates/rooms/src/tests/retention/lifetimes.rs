//! Lifetimes that change: a room's, the server's.

use chappe_kv::{Db, Memory};
use chappe_store::{EventNum, Meta, Store, Tx, rooms::RoomHeads};
use ruma::RoomId;
use serde_json::json;
use tokio::time::advance;

use super::{
    super::net::{ALICE, BOB, Net, actor, bodies, room, say, state, stored},
    DAY, DAY_MS, HOUR, keeping, seen, two,
};
use crate::{Config, Draft, Rooms};

async fn keep_for(rooms: &Rooms, who: &str, id: &RoomId, ms: u64) {
    let event = state("m.room.retention", "", &json!({ "max_lifetime": ms }));
    rooms.send(&actor(who), id, event, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_is_changed_both_ways() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    for number in 0..8 {
        say(&a, ALICE, &id, &format!("day {number}")).await;
        advance(DAY).await;
    }
    assert_eq!(seen(&a, ALICE, &id).await.len(), 6, "seven days are over for two");
    keep_for(&a, ALICE, &id, 3 * DAY_MS).await;
    assert_eq!(seen(&a, ALICE, &id).await, ["day 7", "day 6"]);
    // Within the hour a mistake can still be put right.
    keep_for(&a, ALICE, &id, 100 * DAY_MS).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await.len(), 8);
    keep_for(&a, ALICE, &id, 3 * DAY_MS).await;
    advance(HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(bodies(&a, &id).await, ["day 6", "day 7"]);
    keep_for(&a, ALICE, &id, 100 * DAY_MS).await;
    advance(HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["day 7", "day 6"], "what is gone does not come back");
    advance(90 * DAY).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await.len(), 2);
    // Less than the server allows is what it allows.
    keep_for(&a, ALICE, &id, 0).await;
    say(&a, ALICE, &id, "today").await;
    assert_eq!(seen(&a, ALICE, &id).await, ["today"]);
    // Nothing is said of it any more: the server's own policy.
    let told = state("m.room.retention", "", &json!({}));
    let told = a.send(&actor(ALICE), &id, told, None).await.unwrap();
    advance(2 * DAY).await;
    assert_eq!(seen(&a, ALICE, &id).await, ["today"]);
    keep_for(&a, ALICE, &id, DAY_MS).await;
    assert!(seen(&a, ALICE, &id).await.is_empty());
    let view = a.view(&id).await.unwrap();
    let now = view.current("m.room.retention".into(), "").await.unwrap().unwrap();
    assert_ne!(now.pdu.event_id(), &*told);
    let now = now.pdu.event_id().to_owned();
    drop(view);
    a.send(&actor(ALICE), &id, Draft::redaction(&now, None), None).await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["today"], "a redacted rule says nothing");
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_that_is_redacted_before_it_comes_says_nothing() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    let levels = json!({ "users": { ALICE: 100, BOB: 50 } });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    net.deliver().await;
    let told = state("m.room.retention", "", &json!({ "max_lifetime": DAY_MS }));
    let told = a.send(&actor(ALICE), &id, told, None).await.unwrap();
    b.send(&actor(BOB), &id, Draft::redaction(&told, None), None).await.unwrap();
    net.deliver().await;
    for rooms in [&a, &b] {
        let view = rooms.view(&id).await.unwrap();
        assert!(view.current("m.room.retention".into(), "").await.unwrap().unwrap().is_redacted());
        assert_eq!(view.head.keeping.said.max, None);
    }
}

/// Rooms that nobody writes to any more learn of a new configuration, over a restart, each once.
#[tokio::test(start_paused = true)]
async fn a_new_configuration_reaches_every_room() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let start = |config: Config| net.server_with("a.example", 1, db.clone(), config);
    let a = start(Config::default());
    let mut rooms = Vec::new();
    for number in 0..3 {
        let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
        say(&a, ALICE, &id, "old").await;
        if number == 0 {
            keep_for(&a, ALICE, &id, 200 * DAY_MS).await;
        }
        rooms.push(id);
    }
    advance(100 * DAY).await;
    assert_eq!(a.expire_due().await.unwrap(), None);
    assert_eq!(seen(&a, ALICE, &rooms[1]).await, ["old"]);
    let a = start(keeping(30));
    let next = a.expire_due().await.unwrap();
    assert_eq!(next.map(|next| next > a.0.world.now()), Some(true), "the first room has its own lifetime");
    assert_eq!(a.expiry_figures().events, 2);
    let left = |rooms: Vec<Vec<String>>| rooms.into_iter().map(|bodies| bodies.len()).collect::<Vec<_>>();
    let mut all = Vec::new();
    for id in &rooms {
        all.push(bodies(&a, id).await);
    }
    assert_eq!(left(all), [1, 0, 0]);
    // Switched off and on again: what was said meanwhile is not forgotten to be forgotten.
    let a = start(Config::default());
    a.expire_due().await.unwrap();
    say(&a, ALICE, &rooms[2], "meanwhile").await;
    advance(31 * DAY).await;
    let a = start(keeping(30));
    a.expire_due().await.unwrap();
    assert!(bodies(&a, &rooms[2]).await.is_empty());
}

/// What a room was told of is in its head, which existing rooms get when the store is opened.
#[tokio::test(start_paused = true)]
async fn heads_of_an_older_format_are_brought_up_to_date() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let a = net.server_on("a.example", 1, db.clone());
    let id = room(&a, ALICE, json!({})).await;
    keep_for(&a, ALICE, &id, 5).await;
    let nid = a.number(&id).await.unwrap().unwrap();
    let old = a.store().read().room_head(nid).await.unwrap();
    assert_eq!(old.keeping.said.max, Some(5));
    let mut new = old.clone();
    new.keeping.said.max = None;
    let mut tx = Tx::new();
    tx.replace_head(nid, &old, &new);
    tx.put::<Meta>(&"format".to_owned(), &2_u32.to_be_bytes().to_vec());
    a.store().commit(tx).await.unwrap();
    let store = Store::open(db).await.unwrap();
    let head = store.read().get::<RoomHeads>(&nid).await.unwrap().unwrap();
    assert_eq!((head.keeping.said.max, head.keeping.next), (Some(5), EventNum(1)));
}

#[tokio::test(start_paused = true)]
async fn another_lifetime_holds_at_once() {
    let net = Net::default();
    let a = net.server("a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let old = say(&a, ALICE, &id, "old").await;
    advance(8 * DAY).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["old"]);
    a.reconfigure(keeping(9));
    assert_eq!(seen(&a, ALICE, &id).await, ["old"]);
    a.expire_due().await.unwrap();
    a.reconfigure(keeping(7));
    assert!(seen(&a, ALICE, &id).await.is_empty());
    assert!(stored(&a, &id, &old).await.contains("old"));
    a.reconfigure(Config::default());
    assert_eq!(seen(&a, ALICE, &id).await, ["old"], "put right in time");
    a.reconfigure(keeping(7));
    a.expire_due().await.unwrap();
    assert!(!stored(&a, &id, &old).await.contains("old"));
}
