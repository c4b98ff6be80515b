//! Device lists across servers: fetched, kept up to date, fetched again after a gap; to-device messages.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use chappe_accounts::{
    CrossSigningUpload, KeyUpload, LogIn, Refreshing, RemoteError, RemoteKeys, RemoteUsers, Replace,
};
use chappe_kv::{Batch, Db, Fault, Faulty, Memory};
use chappe_store::{Json, Store, Tx, accounts_keys::KeySignatures, outbox::AnnouncedDevices};
use chappe_world::{FakeNet, Fate};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, ServerName, UserId, serde::Raw, server_name};
use serde_json::{Value, json, value::RawValue};
use tower::ServiceExt;

use super::{Server, config, couple, eventually, peer::Peer};
use crate::inbound::Received;

/// A device with keys that look like keys.
pub(super) async fn device(server: &Server, user: &UserId, id: &str) {
    let log_in = LogIn {
        user_id: user.to_owned(),
        device_id: Some(id.into()),
        device_name: None,
        refreshing: Refreshing::No,
        by: None,
    };
    server.accounts.log_in(log_in).await.unwrap();
    let (key, signature) = ("A".repeat(43), "A".repeat(86));
    let keys = json!({
        "user_id": user, "device_id": id, "algorithms": ["m.megolm.v1.aes-sha2"],
        "keys": { format!("ed25519:{id}"): key, format!("curve25519:{id}"): key },
        "signatures": { user.as_str(): { format!("ed25519:{id}"): signature } },
    });
    let keys = Raw::from_json(RawValue::from_string(keys.to_string()).unwrap());
    let upload = KeyUpload { device_keys: Some(keys), ..KeyUpload::default() };
    server.accounts.upload_keys(user, <&DeviceId>::from(id), upload).await.unwrap();
}

pub(super) async fn known(server: &Server, user: &UserId) -> Vec<String> {
    let keys = server.accounts.public_keys(None, user, &[]).await.unwrap();
    keys.devices.keys().map(ToString::to_string).collect()
}

/// Has a server answer a local user who asks for keys of users of another.
pub(super) async fn ask(
    server: &Server,
    asker: &UserId,
    of: &ServerName,
    users: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
) -> Result<RemoteKeys, RemoteError> {
    let asker = server.federation.asker(asker, &users).await;
    server.federation.query_keys(&asker, of, users).await
}

pub(super) async fn query(server: &Server, asker: &str, user: &UserId) -> Vec<String> {
    let asker = server.actor(asker).user;
    let users = BTreeMap::from([(user.to_owned(), Vec::new())]);
    let keys = ask(server, &asker, user.server_name(), users).await.unwrap();
    keys.devices
        .get(user)
        .map(|devices| devices.keys().map(ToString::to_string).collect())
        .unwrap_or_default()
}

/// Tells a server of a change of a user's devices, as the user's server does.
pub(super) async fn tell(server: &Server, user: &UserId, (stream_id, prev_id): (u64, &Value), txn: &str) {
    let update = json!({ "edu_type": "m.device_list_update", "content": {
        "user_id": user, "device_id": "FORGED", "stream_id": stream_id, "prev_id": prev_id } });
    hear(server, user.server_name(), &update, txn).await;
}

/// Has a server receive an EDU of another.
pub(super) async fn hear(server: &Server, origin: &ServerName, edu: &Value, txn: &str) {
    let edus = vec![RawValue::from_string(edu.to_string()).unwrap()];
    let (origin, id) = (origin.to_owned(), txn.to_owned());
    server.federation.receive(Received { origin, id, pdus: Vec::new(), edus }).await.unwrap();
}

/// Waits until the list that a server keeps of a user is believed; gives its stream id.
async fn believed(server: &Server, user: &UserId) -> u64 {
    let list = async || server.accounts.remote_list(user).await.unwrap().unwrap();
    eventually("the list is believed", async || !list().await.stale).await;
    list().await.stream_id
}

/// Has the lists of a server come a while after they were written.
pub(super) fn delay_lists(net: &FakeNet, server: &Server, by: Duration) {
    let router = server.router.clone();
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let router = router.clone();
        async move {
            let is_list = request.uri().path().starts_with("/_matrix/federation/v1/user/devices/");
            let answer = router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {});
            if is_list {
                tokio::time::sleep(by).await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    net.route(server.name.as_str(), &server.world, service);
}

#[tokio::test(start_paused = true)]
async fn lists_are_followed_and_repaired_after_a_gap() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    let asked = super::count(&net, "/_matrix/federation/v1/user");
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    assert_eq!(asked.load(SeqCst), 0, "a list that is followed was asked for");

    device(&a, &alice, "TWO").await;
    eventually("the new device is known", async || known(&b, &alice).await == ["ONE", "TWO"]).await;

    // An update gets lost for good: what b is told next does not follow what it has.
    let mut ahead = a.federation.announced(&alice).await.unwrap();
    ahead.stream_id += 5;
    let mut tx = Tx::new();
    tx.put::<AnnouncedDevices>(&alice, &Json(ahead));
    a.store.commit(tx).await.unwrap();
    device(&a, &alice, "THREE").await;
    eventually("the list is fetched", async || known(&b, &alice).await == ["ONE", "THREE", "TWO"]).await;

    a.accounts.delete_devices(&alice, &["ONE".into()]).await.unwrap();
    eventually("the device is gone", async || known(&b, &alice).await == ["THREE", "TWO"]).await;

    a.rooms.leave(&a.actor("alice"), &room, None).await.unwrap();
    eventually("the list is doubted", async || b.accounts.remote_list(&alice).await.unwrap().unwrap().stale)
        .await;
    device(&a, &alice, "FOUR").await;
    assert_eq!(query(&b, "bob", &alice).await, ["FOUR", "THREE", "TWO"], "not what was kept");
}

#[tokio::test(start_paused = true)]
async fn an_update_that_does_not_follow_what_is_known_has_the_list_fetched() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    let at = b.accounts.remote_list(&alice).await.unwrap().unwrap().stream_id;
    let asked = super::count(&net, "/_matrix/federation/v1/user/devices");
    for (number, (stream_id, prev_id, fetched)) in [
        (at, json!([at - 1]), false),
        (at + 1, json!([]), true),
        (at + 1, json!([at + 7]), true),
        (at + 1, json!([at - 1]), true),
        // As of a server that went back to a backup.
        (at - 1, json!([at]), true),
        (at + 1, json!([at + 9, at]), false),
    ]
    .into_iter()
    .enumerate()
    {
        asked.store(0, SeqCst);
        tell(&b, &alice, (stream_id, &prev_id), &format!("update{number}")).await;
        believed(&b, &alice).await;
        assert_eq!(asked.load(SeqCst), usize::from(fetched), "{stream_id} after {prev_id}, known {at}");
    }
    assert_eq!(known(&b, &alice).await, ["ONE"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_server_that_counts_lists_otherwise_than_updates_no_list_is_fetched_twice() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    let mut announced = a.federation.announced(&alice).await.unwrap();
    announced.stream_id = 1006;
    let mut tx = Tx::new();
    tx.put::<AnnouncedDevices>(&alice, &Json(announced));
    a.store.commit(tx).await.unwrap();
    let asked = super::count(&net, "/_matrix/federation/v1/user/devices");
    for (stream_id, prev_id, fetched, then) in
        [(1005, 1001, 1, 1006), (1010, 1005, 1, 1010), (1014, 1010, 1, 1014), (1020, 1017, 2, 1006)]
    {
        tell(&b, &alice, (stream_id, &json!([prev_id])), &format!("update{stream_id}")).await;
        assert_eq!(believed(&b, &alice).await, then, "{stream_id}");
        assert_eq!(asked.load(SeqCst), fetched, "{stream_id}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_that_comes_while_the_list_is_fetched_is_not_lost() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    let at = believed(&b, &alice).await;
    delay_lists(&net, &a, Duration::from_secs(5));
    tell(&b, &alice, (at + 1, &json!([at + 7])), "gap").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    device(&a, &alice, "TWO").await;
    believed(&b, &alice).await;
    assert_eq!(known(&b, &alice).await, ["ONE", "TWO"]);
    assert!(b.accounts.stale_lists(None, 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_list_that_is_doubted_is_not_forgotten_when_the_list_cannot_be_fetched() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    let at = believed(&b, &alice).await;
    b.accounts.doubt_known(std::slice::from_ref(&alice)).await.unwrap();
    net.unroute("a.example");
    tell(&b, &alice, (at + 1, &json!([at])), "doubted").await;
    assert_eq!(b.accounts.stale_lists(None, 10).await.unwrap(), [alice]);
}

#[tokio::test(start_paused = true)]
async fn who_joins_is_announced_even_without_keys() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let carol = b.account("carol").await;
    let log_in = LogIn {
        user_id: carol.clone(),
        device_id: Some("BARE".into()),
        device_name: None,
        refreshing: Refreshing::No,
        by: None,
    };
    b.accounts.log_in(log_in).await.unwrap();
    let told = Arc::new(AtomicBool::new(false));
    let heard = told.clone();
    net.judge(move |_, to, request| {
        let body = String::from_utf8_lossy(request.body());
        if to == "a.example" && body.contains("m.device_list_update") && body.contains("BARE") {
            heard.store(true, SeqCst);
        }
        Fate::Deliver
    });
    b.join("carol", &room, &a).await;
    eventually("the device is announced", async || told.load(SeqCst)).await;
    assert_eq!(b.federation.announced(&carol).await.unwrap().stream_id, 1);
}

#[tokio::test(start_paused = true)]
async fn users_without_a_common_room_are_asked_for_and_not_followed() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let carol = a.account("carol").await;
    device(&a, &carol, "C").await;
    assert_eq!(query(&b, "bob", &carol).await, ["C"]);
    assert!(b.accounts.remote_list(&carol).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_has_verified_a_user_elsewhere_sees_that_later() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    let public = "A".repeat(43);
    let master = json!({
        "user_id": alice, "usage": ["master"], "keys": { format!("ed25519:{public}"): public },
    });
    let master = Some(Raw::from_json(RawValue::from_string(master.to_string()).unwrap()));
    let upload = CrossSigningUpload { master, ..CrossSigningUpload::default() };
    a.accounts.upload_cross_signing(&alice, upload, Replace::Refused).await.unwrap();
    let signed = async |asker: &str, by: &UserId| {
        let users = BTreeMap::from([(alice.clone(), Vec::new())]);
        let asker = b.actor(asker).user;
        let keys = ask(&b, &asker, alice.server_name(), users).await.unwrap();
        keys.master[&alice].json().get().contains(by.as_str())
    };
    let bob = b.actor("bob").user;
    assert!(!signed("bob", &bob).await);
    // As an upload of signatures leaves it.
    let mut tx = Tx::new();
    let row = (alice.clone(), bob.clone(), public.clone(), "ed25519:OF_BOB".to_owned());
    tx.put::<KeySignatures>(&row, &"A".repeat(86));
    b.store.commit(tx).await.unwrap();
    assert!(signed("bob", &bob).await);
    assert!(!signed("carol", &bob).await, "whom others have verified is their business");
}

#[tokio::test(start_paused = true)]
async fn to_device_messages_arrive_once_and_never_in_a_foreign_name() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let bob = b.account("bob").await;
    device(&b, &bob, "B").await;
    let count = std::sync::atomic::AtomicUsize::new(0);
    net.judge(move |from, _, request| {
        let send = from == "a.example" && request.uri().path().starts_with("/_matrix/federation/v1/send/");
        if send && count.fetch_add(1, SeqCst) == 0 {
            return Fate::LoseAnswer;
        }
        Fate::Deliver
    });
    let alice = a.actor("alice").user;
    let content = RawValue::from_string("{\"secret\":1}".to_owned()).unwrap();
    let recipients = chappe_accounts::Recipients::All(content);
    let messages = [(bob.clone(), recipients)];
    let sending =
        chappe_accounts::Sending { sender: &alice, once: None, event_type: "m.test", messages: &messages };
    let tx = chappe_accounts::to_device_for_servers(&sending, "m1").unwrap();
    a.store.commit(tx).await.unwrap();
    eventually("it is delivered", async || a.waiting(&b).await == 0).await;
    let inbox = async || {
        let reader = b.store.read();
        let (none, now) = (chappe_store::Position(0), reader.position());
        let device = <&DeviceId>::from("B");
        b.accounts.to_device_messages(&reader, &bob, device, none, now, 100).await.unwrap()
    };
    assert_eq!(inbox().await.len(), 1);
    // Nor twice when the transaction comes again under another name: the message has an id of its own.
    let same = json!({ "edu_type": "m.direct_to_device", "content": {
        "sender": alice, "type": "m.test", "message_id": "m1", "messages": { bob.as_str(): { "B": {} } } } });
    hear(&b, server_name!("a.example"), &same, "again").await;
    assert_eq!(inbox().await.len(), 1);
    let forged = json!({ "edu_type": "m.direct_to_device", "content": {
        "sender": alice, "type": "m.test", "message_id": "m2", "messages": { bob.as_str(): { "B": {} } } } });
    hear(&b, server_name!("c.example"), &forged, "1").await;
    assert_eq!(inbox().await.len(), 1);
}

/// What number the messages are that wait for a device.
async fn inbox(server: &Server, user: &UserId, device: &str) -> Vec<Value> {
    let reader = server.store.read();
    let (none, now) = (chappe_store::Position(0), reader.position());
    let found =
        server.accounts.to_device_messages(&reader, user, device.into(), none, now, 100).await.unwrap();
    let number =
        |event: &RawValue| serde_json::from_str::<Value>(event.get()).unwrap()["content"]["n"].take();
    found.iter().map(|message| number(&message.event)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_kept_is_not_acknowledged() {
    let net = FakeNet::new();
    let full = Arc::new(AtomicBool::new(false));
    let is_full = full.clone();
    let plan = move |_: &Batch| is_full.load(SeqCst).then_some(Fault::Lost);
    let db = Db::new(Faulty::new(Memory::default(), Arc::new(Mutex::new(plan))));
    let b = Server::build(&net, "b.example", 2, config(), Store::new(db));
    let bob = b.account("bob").await;
    device(&b, &bob, "B").await;
    let peer = Peer::start(&net, "c.example", 3);
    let send = async |txn: &str, edus: Value| {
        let body = json!({ "origin": peer.name, "origin_server_ts": 1, "pdus": [], "edus": edus });
        peer.call(&b, Method::PUT, &format!("/_matrix/federation/v1/send/{txn}"), &body).await.0
    };
    let letter = |n: u64| {
        json!({ "edu_type": "m.direct_to_device", "content": {
            "sender": "@carol:c.example", "type": "m.test", "message_id": n.to_string(),
            "messages": { bob.as_str(): { "B": { "n": n } } } } })
    };
    let presence = json!({ "edu_type": "m.presence", "content": {
        "push": [{ "user_id": "@carol:c.example", "presence": "online", "last_active_ago": 1 }] } });
    assert_eq!(send("0", json!([letter(0)])).await, StatusCode::OK);
    full.store(true, SeqCst);
    for _ in 0..2 {
        let refused = send("1", json!([presence, letter(1), letter(2)])).await;
        assert_eq!(refused, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(send("2", json!([presence])).await, StatusCode::OK, "nothing of it is kept on disk");
    full.store(false, SeqCst);
    for _ in 0..2 {
        assert_eq!(send("1", json!([presence, letter(1), letter(2)])).await, StatusCode::OK);
    }
    assert_eq!(inbox(&b, &bob, "B").await, [0, 1, 2], "in their order, and once");
    // Nor is what a server that stops did not get to.
    b.world.kill();
    let edus = vec![RawValue::from_string(letter(3).to_string()).unwrap()];
    let (origin, id) = (peer.name.clone(), "3".to_owned());
    let stopped = b.federation.receive(Received { origin, id, pdus: Vec::new(), edus }).await;
    assert_eq!(stopped.unwrap_err().status(), StatusCode::INTERNAL_SERVER_ERROR);
}
