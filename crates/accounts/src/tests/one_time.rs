//! One-time keys that come again after they were handed out.

use std::time::Duration;

use chappe_store::accounts_keys::SpentKeys;
use ruma::device_id;
use serde_json::json;

use super::{
    encryption::{claimed, one_time, one_time_left, raw},
    log_in, server, user,
};

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
    tokio::time::advance(Duration::from_hours(8 * 24)).await;
    accounts.sweep().await.unwrap();
    let left = accounts.store().read().scan_all::<SpentKeys>(&()).await.unwrap();
    assert!(left.is_empty(), "what was handed out is not remembered for ever: {left:?}");
}
