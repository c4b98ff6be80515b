//! One-time keys that come again after they were handed out.

use std::time::Duration;

use chappe_store::{
    Json, LogEntry, Tx,
    accounts::{Device, Devices},
    accounts_keys::SpentKeys,
};
use ruma::device_id;
use serde_json::json;

use super::{
    encryption::{claimed, one_time, one_time_left, raw},
    log_in, server, user,
};
use crate::KeyUpload;

#[tokio::test(start_paused = true)]
async fn a_key_that_was_handed_out_is_not_taken_in_again() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    log_in(&accounts, &alice, "TWO").await;
    let (one, two) = (device_id!("ONE"), device_id!("TWO"));
    accounts.upload_keys(&alice, one, one_time(0..3)).await.unwrap();
    assert_eq!(claimed(&accounts, &alice, "ONE").await.unwrap(), "signed_curve25519:K0000");
    // The answer to the upload was lost: the client does not know that the keys are there.
    accounts.upload_keys(&alice, one, one_time(0..4)).await.unwrap();
    assert_eq!(one_time_left(&accounts, &alice, one).await, 3);
    let mut rest = Vec::new();
    while let Some(id) = claimed(&accounts, &alice, "ONE").await {
        rest.push(id);
    }
    assert_eq!(rest, [1, 2, 3].map(|n| format!("signed_curve25519:K{n:04}")));
    // Another device's keys are its own, and so is another key under an id that was used.
    accounts.upload_keys(&alice, two, one_time(0..1)).await.unwrap();
    assert_eq!(one_time_left(&accounts, &alice, two).await, 1);
    let mut other = one_time(0..1);
    *other.one_time_keys.values_mut().next().unwrap() = raw(&json!({ "key": "another", "signatures": {} }));
    accounts.upload_keys(&alice, one, other).await.unwrap();
    assert_eq!(one_time_left(&accounts, &alice, one).await, 1);
    let remembered = async || {
        accounts.sweep().await.unwrap();
        accounts.store().read().scan_all::<SpentKeys>(&()).await.unwrap()
    };
    tokio::time::advance(Duration::from_hours(89 * 24)).await;
    assert!(!remembered().await.is_empty(), "a client may be away for weeks");
    tokio::time::advance(Duration::from_hours(2 * 24)).await;
    let left = remembered().await;
    assert!(left.is_empty(), "what was handed out is not remembered for ever: {left:?}");
}

#[tokio::test]
async fn keys_of_before_are_not_handed_out_after_a_backup_was_put_back() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let (asleep, one) = (device_id!("ASLEEP"), device_id!("ONE"));
    for device in [asleep, one] {
        log_in(&accounts, &alice, device.as_str()).await;
        accounts.upload_keys(&alice, device, one_time(0..3)).await.unwrap();
    }
    let fallback = raw(&json!({ "key": "k", "signatures": {}, "fallback": true }));
    let id = "signed_curve25519:F".try_into().unwrap();
    let upload = KeyUpload { fallback_keys: [(id, fallback)].into(), ..KeyUpload::default() };
    accounts.upload_keys(&alice, one, upload).await.unwrap();
    let key = (alice.clone(), asleep.to_owned());
    let Json(head) = accounts.store().read().get::<Devices>(&key).await.unwrap().unwrap();
    let mut tx = Tx::new();
    tx.put::<Devices>(&key, &Json(Device { dehydrated: true, ..head }));
    let before = accounts.store().commit(tx).await.unwrap();

    for _ in 0..2 {
        accounts.forget_one_time_keys().await.unwrap();
    }
    let told = accounts.store().read().log_after(before, 10).await.unwrap();
    let news = LogEntry::OneTimeKeys { user: alice.clone(), device: one.to_owned() };
    assert!(told.iter().all(|entry| entry.what == news), "{told:?}");
    assert_eq!(told.len(), 2, "the device is told");
    assert_eq!(one_time_left(&accounts, &alice, one).await, 0);
    assert_eq!(one_time_left(&accounts, &alice, asleep).await, 3, "nobody could upload others");
    let counts = accounts.key_counts(&accounts.store().read(), &alice, one).await.unwrap();
    assert!(counts.unused_fallback.is_empty(), "it may have been used, and replaced");
    assert_eq!(claimed(&accounts, &alice, "ONE").await.unwrap(), "signed_curve25519:F");
    // Ids that were there are no obstacle.
    let mut others = one_time(0..2);
    for key in others.one_time_keys.values_mut() {
        *key = raw(&json!({ "key": "another", "signatures": {} }));
    }
    accounts.upload_keys(&alice, one, others).await.unwrap();
    assert_eq!(one_time_left(&accounts, &alice, one).await, 2);
    assert_eq!(claimed(&accounts, &alice, "ONE").await.unwrap(), "signed_curve25519:K0000");
}
