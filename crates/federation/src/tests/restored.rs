//! A server that went back to a backup: what it told others of devices since, and what it heard, is not known to it.

use std::sync::atomic::Ordering::SeqCst;

use chappe_store::{Tx, outbox::Outbox};
use chappe_world::FakeNet;
use serde_json::{Value, json};

use super::{
    count,
    devices::{LISTS, believed, device, followed, hear, known, query, set_announced, with_device},
    eventually,
};

#[tokio::test(start_paused = true)]
async fn an_update_that_is_counted_again_is_the_same_only_if_it_says_the_same() {
    let net = FakeNet::new();
    let (a, b, alice) = followed(&net).await;
    let at = believed(&b, &alice).await;
    let devices = a.accounts.federated_devices(&alice).await.unwrap();
    let keys: Value = serde_json::from_str(devices[0].1.json().get()).unwrap();
    let asked = count(&net, LISTS);
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
        believed(&b, &alice).await;
        assert_eq!(asked.load(SeqCst), fetched, "{number}");
    }
    assert_eq!(known(&b, &alice).await, ["ONE"]);
}

#[tokio::test(start_paused = true)]
async fn other_servers_fetch_the_lists_of_a_server_that_went_back_to_a_backup() {
    let net = FakeNet::new();
    let (a, b, _room, alice) = with_device(&net).await;
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
    set_announced(&a, &alice, kept).await;
    a.federation.announce_anew().await.unwrap();
    assert_eq!(a.federation.announced(&alice).await.unwrap().stream_id, 1 + (1 << 20));
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("the list is fetched", async || known(&b, &alice).await == ["ONE"]).await;
    // What comes then follows it.
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    let asked = count(&net, LISTS);
    device(&a, &alice, "TWO").await;
    eventually("the new one is known", async || known(&b, &alice).await == ["ONE", "TWO"]).await;
    assert_eq!(asked.load(SeqCst), 0);
}
