//! Device lists across servers: fetched, kept up to date, fetched again after a gap; to-device messages.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use chappe_accounts::{
    Claim, CrossSigningUpload, KeyUpload, LogIn, Refreshing, RemoteError, RemoteKeys, RemoteUsers, Replace,
};
use chappe_kv::{Batch, Db, Fault, Faulty, Memory};
use chappe_store::{
    Json, Store, Tx,
    accounts_keys::KeySignatures,
    outbox::{Announced, AnnouncedDevices},
};
use chappe_world::{FakeNet, Fate};
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedRoomId, OwnedUserId, ServerName, UserId, serde::Raw, server_name};
use serde_json::{Value, json, value::RawValue};
use tower::ServiceExt;

use super::{Server, config, count, couple, eventually, peer::Peer};
use crate::{Config, inbound::Received};

/// Where a server is asked for the list of a user.
pub(super) const LISTS: &str = "/_matrix/federation/v1/user/devices/";

/// A device without keys.
async fn bare_device(server: &Server, user: &UserId, id: &str) {
    let log_in = LogIn {
        user_id: user.to_owned(),
        device_id: Some(id.into()),
        device_name: None,
        refreshing: Refreshing::No,
        by: None,
    };
    server.accounts.log_in(log_in).await.unwrap();
}

/// A device with keys that look like keys.
pub(super) async fn device(server: &Server, user: &UserId, id: &str) {
    bare_device(server, user, id).await;
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

/// The same for the keys of one user.
pub(super) async fn ask_of_one(
    server: &Server,
    asker: &str,
    user: &UserId,
) -> Result<RemoteKeys, RemoteError> {
    let asker = server.actor(asker).user;
    let users = BTreeMap::from([(user.to_owned(), Vec::new())]);
    ask(server, &asker, user.server_name(), users).await
}

pub(super) async fn query(server: &Server, asker: &str, user: &UserId) -> Vec<String> {
    let keys = ask_of_one(server, asker, user).await.unwrap();
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
    try_hear(server, origin, edu, txn).await.unwrap();
}

/// As [`hear`]; an error if it is not taken.
async fn try_hear(
    server: &Server,
    origin: &ServerName,
    edu: &Value,
    txn: &str,
) -> Result<(), chappe_web::Error> {
    let edus = vec![RawValue::from_string(edu.to_string()).unwrap()];
    let (origin, id) = (origin.to_owned(), txn.to_owned());
    server.federation.receive(Received { origin, id, pdus: Vec::new(), edus }).await.map(drop)
}

/// Has a server have announced this of a user's devices, whatever it told others.
pub(super) async fn set_announced(server: &Server, user: &UserId, announced: Announced) {
    let mut tx = Tx::new();
    tx.put::<AnnouncedDevices>(&user.to_owned(), &Json(announced));
    server.store.commit(tx).await.unwrap();
}

/// Two servers with a room, and Alice on the first with a device.
pub(super) async fn with_device(net: &FakeNet) -> (Server, Server, OwnedRoomId, OwnedUserId) {
    let (a, b, room) = couple(net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    (a, b, room, alice)
}

/// The same, where the second follows her list and was told all there is.
pub(super) async fn followed(net: &FakeNet) -> (Server, Server, OwnedUserId) {
    let (a, b, _room, alice) = with_device(net).await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    (a, b, alice)
}

/// Waits until the list that a server keeps of a user is believed; gives its stream id.
pub(super) async fn believed(server: &Server, user: &UserId) -> u64 {
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
            let is_list = request.uri().path().starts_with(LISTS);
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
    let (a, b, room, alice) = with_device(&net).await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    let asked = count(&net, "/_matrix/federation/v1/user");
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    assert_eq!(asked.load(SeqCst), 0, "a list that is followed was asked for");

    device(&a, &alice, "TWO").await;
    eventually("the new device is known", async || known(&b, &alice).await == ["ONE", "TWO"]).await;

    // An update gets lost for good: what b is told next does not follow what it has.
    let mut ahead = a.federation.announced(&alice).await.unwrap();
    ahead.stream_id += 5;
    set_announced(&a, &alice, ahead).await;
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
    let (_a, b, alice) = followed(&net).await;
    let at = believed(&b, &alice).await;
    let asked = count(&net, LISTS);
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
    let (a, b, alice) = followed(&net).await;
    let announced = a.federation.announced(&alice).await.unwrap();
    set_announced(&a, &alice, Announced { stream_id: 1006, ..announced }).await;
    let asked = count(&net, LISTS);
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
    let (a, b, alice) = followed(&net).await;
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
    let (_a, b, alice) = followed(&net).await;
    let at = believed(&b, &alice).await;
    b.accounts.doubt_known(std::slice::from_ref(&alice)).await.unwrap();
    net.unroute("a.example");
    tell(&b, &alice, (at + 1, &json!([at])), "doubted").await;
    assert_eq!(b.accounts.stale_lists(None, 10).await.unwrap(), [alice]);
}

#[tokio::test(start_paused = true)]
async fn what_users_call_their_devices_is_told_only_where_it_is_to_be() {
    for device_names in [false, true] {
        let net = FakeNet::new();
        let a = Server::start(&net, "a.example", 1, Config { device_names, ..config() });
        let b = Server::start(&net, "b.example", 2, config());
        let (room, alice) = (a.room("alice").await, a.account("alice").await);
        b.join("bob", &room, &a).await;
        device(&a, &alice, "ONE").await;
        let announced = async || a.federation.announced(&alice).await.unwrap();
        eventually("the device is announced", async || !announced().await.devices.is_empty()).await;
        // That there was a change is told in any case.
        let rename = async |name: &str| {
            let before = announced().await;
            a.accounts.rename_device(&alice, <&DeviceId>::from("ONE"), Some(name)).await.unwrap();
            let is_new = async || announced().await.devices != before.devices;
            eventually("the change is announced", is_new).await;
            eventually("queues are empty", async || a.waiting(&b).await == 0).await;
        };
        let bob = b.actor("bob").user;
        let is_known = async |name: &str| {
            let keys = b.accounts.public_keys(Some(&bob), &alice, &[]).await.unwrap();
            keys.devices[<&DeviceId>::from("ONE")].json().get().contains(name)
        };
        rename("in the list").await;
        assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
        assert_eq!(is_known("in the list").await, device_names);
        rename("in an update").await;
        let told = announced().await.stream_id;
        let heard = async || b.accounts.remote_list(&alice).await.unwrap().unwrap().stream_id;
        eventually("the change is heard of", async || heard().await == told).await;
        assert_eq!(is_known("in an update").await, device_names);
    }
}

#[tokio::test(start_paused = true)]
async fn who_joins_is_announced_even_without_keys() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let carol = b.account("carol").await;
    bare_device(&b, &carol, "BARE").await;
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

/// Has a local user verify another whose master key has this public part, as an upload of signatures leaves it.
async fn verify(server: &Server, by: &UserId, user: &UserId, public: &str) {
    let mut tx = Tx::new();
    let row = (user.to_owned(), by.to_owned(), public.to_owned(), "ed25519:OF_BOB".to_owned());
    tx.put::<KeySignatures>(&row, &"A".repeat(86));
    server.store.commit(tx).await.unwrap();
}

/// Gives a user a master key; its public part.
async fn master_key(server: &Server, user: &UserId) -> String {
    let public = "A".repeat(43);
    let master = json!({
        "user_id": user, "usage": ["master"], "keys": { format!("ed25519:{public}"): public },
    });
    let master = Some(Raw::from_json(RawValue::from_string(master.to_string()).unwrap()));
    let upload = CrossSigningUpload { master, ..CrossSigningUpload::default() };
    server.accounts.upload_cross_signing(user, upload, Replace::Refused).await.unwrap();
    public
}

/// Whether the master key of a user that another is given is signed by a third.
async fn is_signed(server: &Server, asker: &str, user: &UserId, by: &UserId) -> bool {
    let keys = ask_of_one(server, asker, user).await.unwrap();
    keys.master[user].json().get().contains(by.as_str())
}

#[tokio::test(start_paused = true)]
async fn who_has_verified_a_user_elsewhere_sees_that_later() {
    let net = FakeNet::new();
    let (a, b, _room, alice) = with_device(&net).await;
    let public = master_key(&a, &alice).await;
    let bob = b.actor("bob").user;
    assert!(!is_signed(&b, "bob", &alice, &bob).await);
    verify(&b, &bob, &alice, &public).await;
    assert!(is_signed(&b, "bob", &alice, &bob).await);
    assert!(!is_signed(&b, "carol", &alice, &bob).await, "whom others have verified is their business");
}

#[tokio::test(start_paused = true)]
async fn who_has_verified_a_user_elsewhere_sees_that_without_a_common_room() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let (dora, bob) = (a.account("dora").await, b.actor("bob").user);
    device(&a, &dora, "D").await;
    let public = master_key(&a, &dora).await;
    assert!(!is_signed(&b, "bob", &dora, &bob).await);
    verify(&b, &bob, &dora, &public).await;
    assert!(is_signed(&b, "bob", &dora, &bob).await);
    assert!(!is_signed(&b, "carol", &dora, &bob).await, "whom others have verified is their business");
    assert!(b.accounts.remote_list(&dora).await.unwrap().is_none(), "it is not followed");
}

/// A message to the device B of a user, as servers tell each other of it.
fn to_device(sender: &str, to: &UserId, id: &str, content: &Value) -> Value {
    let messages = json!({ to.as_str(): { "B": content } });
    json!({ "edu_type": "m.direct_to_device", "content": {
        "sender": sender, "type": "m.test", "message_id": id, "messages": messages } })
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
async fn to_device_messages_arrive_once_and_never_in_a_foreign_name() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let bob = b.account("bob").await;
    device(&b, &bob, "B").await;
    let count = AtomicUsize::new(0);
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
    assert_eq!(inbox(&b, &bob, "B").await.len(), 1);
    // Nor twice when the transaction comes again under another name: the message has an id of its own.
    let letter = |id: &str| to_device(alice.as_str(), &bob, id, &json!({}));
    hear(&b, server_name!("a.example"), &letter("m1"), "again").await;
    assert_eq!(inbox(&b, &bob, "B").await.len(), 1);
    let forged = letter("m2");
    hear(&b, server_name!("c.example"), &forged, "1").await;
    assert_eq!(inbox(&b, &bob, "B").await.len(), 1);
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
    let letter = |n: u64| to_device("@carol:c.example", &bob, &n.to_string(), &json!({ "n": n }));
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
    let stopped = try_hear(&b, &peer.name, &letter(3), "3").await;
    assert_eq!(stopped.unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
}

/// A server that waits for an hour after the first failure of another.
fn patient(net: &FakeNet) -> Server {
    Server::start(net, "a.example", 1, Config { backoff_min_ms: 3_600_000, ..config() })
}

#[tokio::test(start_paused = true)]
async fn keys_are_claimed_of_a_server_that_failed_a_moment_ago_and_not_of_one_that_is_away() {
    let net = FakeNet::new();
    let (a, b) = (patient(&net), Server::start(&net, "b.example", 2, config()));
    let claim = async || a.federation.claim_keys(&b.name, Claim::new()).await;
    let fail = async || drop(a.network.backoff().failed(&b.name, None).await.unwrap());
    fail().await;
    tokio::time::advance(Duration::from_millis(500)).await;
    assert!(a.federation.would_claim(&b.name) && claim().await.is_ok(), "a user waits for it");
    fail().await;
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(!a.federation.would_claim(&b.name) && claim().await.is_err());

    let c = server_name!("c.example");
    net.route(c.as_str(), &b.world, b.router.clone());
    net.judge(|_, _, _| Fate::Lose);
    a.network.backoff().failed(c, None).await.unwrap();
    let begun = a.world.instant();
    assert!(a.federation.would_claim(c) && a.federation.claim_keys(c, Claim::new()).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(6), "it is silent still");
}

#[tokio::test(start_paused = true)]
async fn of_a_server_that_just_failed_keys_are_claimed_a_few_times_then_each_second_and_not_for_long() {
    let net = FakeNet::new();
    let (a, b) = (patient(&net), server_name!("b.example"));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    net.judge(move |_, _, request| {
        counted.fetch_add(usize::from(request.uri().path().ends_with("/keys/claim")), SeqCst);
        Fate::Unreachable
    });
    let claims = async |number: u32, apart: Duration| {
        asked.store(0, SeqCst);
        for _ in 0..number {
            if a.federation.would_claim(b) {
                assert!(a.federation.claim_keys(b, Claim::new()).await.is_err());
            }
            tokio::time::advance(apart).await;
        }
        asked.load(SeqCst)
    };
    assert_eq!(claims(50, Duration::ZERO).await, 4);
    assert_eq!(claims(85, Duration::from_millis(100)).await, 8, "one in a second");
    assert_eq!(claims(100, Duration::from_secs(1)).await, 1, "before ten seconds are over");
}

#[tokio::test(start_paused = true)]
async fn claims_that_come_together_are_as_few_at_a_server_that_is_silent() {
    let net = FakeNet::new();
    let (a, b) = (patient(&net), Server::start(&net, "b.example", 2, config()));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    net.judge(move |_, _, request| {
        if !request.uri().path().ends_with("/keys/claim") {
            return Fate::Deliver;
        }
        counted.fetch_add(1, SeqCst);
        Fate::Lose
    });
    a.network.backoff().failed(&b.name, None).await.unwrap();
    let together = async || {
        asked.store(0, SeqCst);
        let claims = join_all((0..50).map(|_| a.federation.claim_keys(&b.name, Claim::new())));
        // Clients that have less patience than this server has.
        drop(a.world.timeout(Duration::from_millis(600), claims).await);
        asked.load(SeqCst)
    };
    assert_eq!(together().await, 3);
    assert_eq!(together().await, 0, "they are under way still");
    tokio::time::advance(Duration::from_millis(600)).await;
    assert_eq!(together().await, 1, "one in a second");
}
