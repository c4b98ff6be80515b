//! What need not go at once, what comes together, and where a queue is read from.

use std::{sync::Arc, time::Duration};

use chappe_store::{
    Cursors, Index, LogEntry, OutboxItem, Tx,
    outbox::Outbox,
    receipts::{ReceiptKey, ReceiptKind},
};
use chappe_world::{FakeNet, Fate};
use parking_lot::Mutex;
use ruma::{
    OwnedEventId, RoomId, api::client::receipt::create_receipt::v3::ReceiptType,
    events::receipt::ReceiptThread,
};
use serde_json::{Map, Value, json};

use super::{Server, config, couple, devices::hear, eventually};

/// The transactions that a server sends from now on.
fn sent_by(net: &FakeNet, server: &'static str) -> Arc<Mutex<Vec<String>>> {
    let sent: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&sent);
    net.judge(move |from, _, request| {
        if from == server && request.uri().path().starts_with("/_matrix/federation/v1/send/") {
            seen.lock().push(String::from_utf8_lossy(request.body()).into_owned());
        }
        Fate::Deliver
    });
    sent
}

async fn read(server: &Server, user: &str, event: (&RoomId, &OwnedEventId), thread: ReceiptThread) {
    let (actor, (room, event)) = (server.actor(user), event);
    server.rooms.set_receipt(&actor, room, &ReceiptType::Read, event, &thread).await.unwrap();
}

/// Whether `server` has a receipt of a user of `of`, in no thread.
async fn is_read(server: &Server, room: &RoomId, (of, user): (&Server, &str)) -> bool {
    let reader = server.store.read();
    let nid = reader.room_nid(room).await.unwrap().unwrap();
    let (user, kind, thread) = (of.actor(user).user, ReceiptKind::Public, String::new());
    reader.receipt(nid, &ReceiptKey { user, kind, thread }).await.unwrap().is_some()
}

/// More users of `a` are in a room, and `b` has heard of it.
async fn others(a: &Server, b: &Server, room: &RoomId) {
    for name in ["anna", "anton"] {
        a.join(name, room, a).await;
        let user = a.actor(name).user;
        let member = async || b.current(room, "m.room.member", user.as_str()).await;
        eventually("b hears of the member", async || member().await != Value::Null).await;
    }
    eventually("quiet", async || a.waiting(b).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn receipts_and_typing_are_gathered_and_go_along_with_what_is_said() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    others(&a, &b, &room).await;
    let event = b.say("bob", &room, "read me").await;
    eventually("it arrives", async || a.has(&event).await).await;
    let (sent, names) = (sent_by(&net, "a.example"), ["alice", "anna", "anton"]);
    for name in names {
        read(&a, name, (&room, &event), ReceiptThread::Unthreaded).await;
        a.federation.send_typing(&room, &a.actor(name).user, true).await.unwrap();
    }
    for name in names {
        eventually("it is read", async || is_read(&b, &room, (&a, name)).await).await;
    }
    eventually("all type", async || b.seen.typing.lock().len() == names.len()).await;
    assert_eq!(sent.lock().len(), 1, "{:?}", sent.lock());

    sent.lock().clear();
    read(&a, "alice", (&room, &event), ReceiptThread::Main).await;
    let said = a.say("alice", &room, "hello").await;
    eventually("it is said", async || b.has(&said).await).await;
    let told = sent.lock().clone();
    assert!(told.len() == 1 && told[0].contains("m.receipt"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_was_being_gathered_goes_after_a_restart() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let event = b.say("bob", &room, "read me").await;
    eventually("it arrives", async || a.has(&event).await).await;
    // So long that the follower writes down its place with the next entry.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let place = async || a.store.read().get::<Cursors>(&"federation".to_owned()).await.unwrap().unwrap_or(0);
    let before = place().await;
    read(&a, "alice", (&room, &event), ReceiptThread::Unthreaded).await;
    eventually("the place is written down", async || place().await > before).await;
    a.world.kill();
    assert!(!is_read(&b, &room, (&a, "alice")).await, "it was not gathered");
    let again = Server::build(&net, "a.example", 1, config(), a.store.clone());
    again.federation.start();
    eventually("it is read", async || is_read(&b, &room, (&a, "alice")).await).await;
}

#[tokio::test(start_paused = true)]
async fn receipts_that_come_together_are_one_commit_and_one_entry_of_the_log() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    others(&a, &b, &room).await;
    let event = a.say("alice", &room, "read me").await;
    eventually("it arrives", async || b.has(&event).await).await;
    let names = ["alice", "anna", "anton", "stranger"];
    let at = json!({ "event_ids": [event], "data": { "ts": 5 } });
    let read: Map<String, Value> =
        names.map(|name| (a.actor(name).user.to_string(), at.clone())).into_iter().collect();
    let edu = json!({ "edu_type": "m.receipt", "content": { room.as_str(): { "m.read": read } } });
    let before = b.store.read().position();
    hear(&b, &a.name, &edu, "receipts").await;
    let reader = b.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let receipts = reader.receipts_after(nid, before).await.unwrap();
    assert_eq!(receipts.len(), 3, "{receipts:?}");
    assert!(receipts.iter().all(|(_, receipt)| receipt.position == receipts[0].1.position), "{receipts:?}");
    let entries = reader.log_after(before, 100).await.unwrap();
    let told = entries.iter().filter(|entry| matches!(entry.what, LogEntry::Receipt { .. })).count();
    assert_eq!(told, 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_read_from_where_it_was_left() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let event = a.say("alice", &room, "one").await;
    eventually("it arrives", async || b.has(&event).await && a.waiting(&b).await == 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Nothing ever comes to stand there, which is why nobody looks.
    let mut tx = Tx::new();
    tx.put::<Outbox>(&(b.name.clone(), 1, Index(0)), &OutboxItem::ToDevice("{}".to_owned()));
    a.store.commit(tx).await.unwrap();
    let event = a.say("alice", &room, "two").await;
    eventually("it arrives", async || b.has(&event).await).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(a.waiting(&b).await, 1);
    // Who has just started knows nothing.
    a.world.kill();
    let again = Server::build(&net, "a.example", 1, config(), a.store.clone());
    again.federation.start();
    eventually("it is found", async || again.waiting(&b).await == 0).await;
}
