//! A server that went back to a backup: what it told others of devices since, and what it heard, is not known to it.

use std::sync::atomic::Ordering::SeqCst;

use chappe_store::{
    Json, Tx,
    outbox::{Announced, AnnouncedDevices, Outbox},
};
use chappe_world::FakeNet;
use ruma::UserId;
use serde_json::{Value, json};

use super::{
    Server, couple,
    devices::{device, hear, known, query},
    eventually,
};

/// What a server has announced of a user is as it was.
async fn put_back(server: &Server, user: &UserId, announced: Announced) {
    let mut tx = Tx::new();
    tx.put::<AnnouncedDevices>(&user.to_owned(), &Json(announced));
    server.store.commit(tx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_counted_again_is_the_same_only_if_it_says_the_same() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    let list = async || b.accounts.remote_list(&alice).await.unwrap().unwrap();
    eventually("the list is believed", async || !list().await.stale).await;
    let at = list().await.stream_id;
    let devices = a.accounts.federated_devices(&alice).await.unwrap();
    let keys: Value = serde_json::from_str(devices[0].1.json().get()).unwrap();
    let asked = super::count(&net, "/_matrix/federation/v1/user/devices");
    let mut others = keys.clone();
    others["keys"]["curve25519:ONE"] = json!("B".repeat(43));
    for (number, (device, news, fetched)) in [
        ("ONE", json!({ "keys": keys }), 0),
        ("GONE", json!({ "deleted": true }), 0),
        ("ONE", json!({ "keys": others }), 1),
        ("ONE", json!({ "deleted": true }), 1),
        ("ONE", json!({ "keys": keys, "device_display_name": "other" }), 1),
        ("TWO", json!({ "device_display_name": "new" }), 1),
    ]
    .into_iter()
    .enumerate()
    {
        asked.store(0, SeqCst);
        let mut update =
            json!({ "user_id": alice, "device_id": device, "stream_id": at, "prev_id": [at - 1] });
        update.as_object_mut().unwrap().extend(news.as_object().unwrap().clone());
        let update = json!({ "edu_type": "m.device_list_update", "content": update });
        hear(&b, &a.name, &update, &format!("update{number}")).await;
        eventually("the list is believed", async || !list().await.stale).await;
        assert_eq!(asked.load(SeqCst), fetched, "{number}");
    }
    assert_eq!(known(&b, &alice).await, ["ONE"]);
}

#[tokio::test(start_paused = true)]
async fn other_servers_fetch_the_lists_of_a_server_that_went_back_to_a_backup() {
    let net = FakeNet::new();
    let (a, b, _room) = couple(&net).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    let counted = async |id: u64| a.federation.announced(&alice).await.unwrap().stream_id == id;
    eventually("the device is announced", async || counted(1).await).await;
    let kept = a.federation.announced(&alice).await.unwrap();
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    device(&a, &alice, "LOST").await;
    eventually("the other is known", async || known(&b, &alice).await == ["LOST", "ONE"]).await;
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;

    // Back to before the second one, of which nobody is told any more.
    net.unroute("b.example");
    a.accounts.delete_devices(&alice, &["LOST".into()]).await.unwrap();
    eventually("it is announced", async || counted(3).await).await;
    let mut tx = Tx::new();
    tx.delete_prefix::<Outbox>(&());
    a.store.commit(tx).await.unwrap();
    put_back(&a, &alice, kept).await;
    a.federation.announce_anew().await.unwrap();
    assert_eq!(a.federation.announced(&alice).await.unwrap().stream_id, 1 + (1 << 20));
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("the list is fetched", async || known(&b, &alice).await == ["ONE"]).await;
    // What comes then follows it.
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    let asked = super::count(&net, "/_matrix/federation/v1/user/devices");
    device(&a, &alice, "TWO").await;
    eventually("the new one is known", async || known(&b, &alice).await == ["ONE", "TWO"]).await;
    assert_eq!(asked.load(SeqCst), 0);
}
