//! Device keys, one-time keys, device lists.

mod cross_signing;
mod remote;

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use chappe_kv::Db;
use chappe_store::{Position, Store};
use futures_util::future::join_all;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ruma::{
    DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, UserId, device_id, serde::Raw,
    signatures::to_canonical_json_string_for_signing, user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{log_in, on, server, server_with, user, yielding::Yielding};
use crate::{Accounts, Claim, Error, KeyUpload};

/// A signing key made from a number.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn public(&self) -> String {
        STANDARD_NO_PAD.encode(self.0.public_key())
    }

    fn sign(&self, object: &mut Value, user: &UserId, key_id: &str) {
        let canonical = serde_json::from_value(object.clone()).unwrap();
        let text = to_canonical_json_string_for_signing(&canonical).unwrap();
        let signature = STANDARD_NO_PAD.encode(self.0.sign(text.as_bytes()));
        object["signatures"][user.as_str()][format!("ed25519:{key_id}")] = json!(signature);
    }
}

fn device_keys(user: &UserId, device: &str, signer: &Signer) -> Value {
    let mut keys = json!({
        "user_id": user, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("ed25519:{device}"): signer.public(),
            format!("curve25519:{device}"): Signer::new(99).public(),
        },
    });
    signer.sign(&mut keys, user, device);
    keys
}

pub(super) fn raw<T>(value: &Value) -> Raw<T> {
    Raw::from_json(to_raw_value(value).unwrap())
}

fn with_device(keys: &Value) -> KeyUpload {
    KeyUpload { device_keys: Some(raw(keys)), ..KeyUpload::default() }
}

pub(super) fn one_time(names: impl IntoIterator<Item = usize>) -> KeyUpload {
    let key = |n| {
        let id = format!("signed_curve25519:K{n:04}").try_into().unwrap();
        (id, raw(&json!({ "key": format!("key {n}"), "signatures": {} })))
    };
    KeyUpload { one_time_keys: names.into_iter().map(key).collect(), ..KeyUpload::default() }
}

fn claim(user: &UserId, device: &str) -> Claim {
    let of_user = BTreeMap::from([(OwnedDeviceId::from(device), OneTimeKeyAlgorithm::SignedCurve25519)]);
    BTreeMap::from([(user.to_owned(), of_user)])
}

pub(super) async fn claimed(accounts: &Accounts, user: &UserId, device: &str) -> Option<String> {
    loop {
        match accounts.claim_keys(&claim(user, device)).await {
            Ok(keys) => return Some(keys.get(user)?.get(device)?.keys().next()?.to_string()),
            Err(Error::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub(super) async fn one_time_left(accounts: &Accounts, user: &UserId, device: &DeviceId) -> u32 {
    let counts = accounts.key_counts(&accounts.store().read(), user, device).await.unwrap();
    counts.one_time_keys[&OneTimeKeyAlgorithm::SignedCurve25519]
}

#[tokio::test]
async fn keys_of_anyone_else_or_of_a_wrong_form_are_refused() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    let signer = Signer::new(1);
    let good = device_keys(&alice, "ONE", &signer);
    let mut bad = vec![
        device_keys(user_id!("@bob:hs1"), "ONE", &signer),
        device_keys(&alice, "TWO", &signer),
        json!({}),
    ];
    for (path, value) in [
        ("/algorithms", Value::Null),
        ("/algorithms/0", json!(1)),
        ("/keys", json!([])),
        ("/keys", json!({})),
        ("/keys/ed25519:ONE", Value::Null),
        ("/keys/ed25519:ONE", json!("short")),
        ("/keys/curve25519:ONE", json!({})),
        ("/signatures", Value::Null),
        ("/signatures/@alice:hs1/ed25519:ONE", json!("x")),
    ] {
        let mut keys = good.clone();
        *keys.pointer_mut(path).unwrap() = value;
        bad.push(keys);
    }
    let mut giant = good.clone();
    giant["pad"] = json!("x".repeat(20_000));
    bad.push(giant);
    for keys in bad {
        let outcome = accounts.upload_keys(&alice, device_id!("ONE"), with_device(&keys)).await;
        assert!(matches!(outcome, Err(Error::Invalid(_) | Error::BadJson(_) | Error::TooLarge(_))), "{keys}");
    }
    let null = KeyUpload { device_keys: Some(raw(&Value::Null)), ..KeyUpload::default() };
    assert!(accounts.upload_keys(&alice, device_id!("ONE"), null).await.is_err());
    assert!(accounts.public_keys(Some(&alice), &alice, &[]).await.unwrap().devices.is_empty());
    accounts.upload_keys(&alice, device_id!("ONE"), with_device(&good)).await.unwrap();
    let outcome = accounts.upload_keys(&alice, device_id!("NONE"), KeyUpload::default()).await;
    assert!(matches!(outcome, Err(Error::NotFound(_))));
    for odd in [
        json!(1),
        json!({ "key": 1 }),
        json!({ "key": "k" }),
        json!("text"),
        json!({ "key": "x".repeat(9000) }),
    ] {
        let id = "signed_curve25519:A".try_into().unwrap();
        let upload = KeyUpload { one_time_keys: [(id, raw(&odd))].into(), ..KeyUpload::default() };
        assert!(accounts.upload_keys(&alice, device_id!("ONE"), upload).await.is_err(), "{odd}");
    }
}

#[tokio::test]
async fn uploads_can_be_repeated_but_not_changed() {
    let accounts = server_with(|config| config.limits.one_time_keys = 5);
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    let one = device_id!("ONE");
    for _ in 0..2 {
        accounts.upload_keys(&alice, one, one_time(0..3)).await.unwrap();
        assert_eq!(one_time_left(&accounts, &alice, one).await, 3);
    }
    let mut other = one_time(0..1);
    *other.one_time_keys.values_mut().next().unwrap() = raw(&json!({ "key": "another", "signatures": {} }));
    assert!(matches!(accounts.upload_keys(&alice, one, other).await, Err(Error::Invalid(_))));
    assert!(matches!(accounts.upload_keys(&alice, one, one_time(3..9)).await, Err(Error::TooMany(_))));
    accounts.upload_keys(&alice, one, one_time(3..5)).await.unwrap();
    let order: Vec<_> =
        [claimed(&accounts, &alice, "ONE").await, claimed(&accounts, &alice, "ONE").await].into();
    assert_eq!(
        order,
        [Some("signed_curve25519:K0000".to_owned()), Some("signed_curve25519:K0001".to_owned())]
    );
}

#[tokio::test]
async fn a_device_that_lost_its_keys_begins_anew() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    let one = device_id!("ONE");
    let upload = |seed: u8, keys: usize| {
        let key = |kind: &str| raw(&json!({ "key": format!("{kind} of {seed}"), "signatures": {} }));
        let id = |n: usize| format!("signed_curve25519:K{n:04}").try_into().unwrap();
        KeyUpload {
            one_time_keys: (0..keys).map(|n| (id(n), key(&format!("key {n}")))).collect(),
            fallback_keys: [("signed_curve25519:F".try_into().unwrap(), key("fallback"))].into(),
            ..with_device(&device_keys(&alice, "ONE", &Signer::new(seed)))
        }
    };
    accounts.upload_keys(&alice, one, upload(1, 3)).await.unwrap();
    assert_eq!(claimed(&accounts, &alice, "ONE").await.unwrap(), "signed_curve25519:K0000");
    // The same ids, other keys.
    let counts = accounts.upload_keys(&alice, one, upload(2, 2)).await.unwrap();
    assert_eq!(counts.one_time_keys[&OneTimeKeyAlgorithm::SignedCurve25519], 2);
    assert_eq!(counts.unused_fallback.len(), 1);
    assert_eq!(one_time_left(&accounts, &alice, one).await, 2);
    let mut given = Vec::new();
    for _ in 0..3 {
        let keys = accounts.claim_keys(&claim(&alice, "ONE")).await.unwrap();
        let (_, key) = keys[&alice][one].iter().next().unwrap();
        given.push(key.deserialize_as_unchecked::<Value>().unwrap()["key"].clone());
    }
    assert_eq!(given, [json!("key 0 of 2"), json!("key 1 of 2"), json!("fallback of 2")]);
    // Identity keys alone take away what was there as well.
    let alone = with_device(&device_keys(&alice, "ONE", &Signer::new(3)));
    accounts.upload_keys(&alice, one, upload(2, 3)).await.unwrap();
    assert_eq!(one_time_left(&accounts, &alice, one).await, 1);
    accounts.upload_keys(&alice, one, alone).await.unwrap();
    assert_eq!(one_time_left(&accounts, &alice, one).await, 0);
    assert_eq!(claimed(&accounts, &alice, "ONE").await, None);
}

#[tokio::test]
async fn a_one_time_key_is_never_handed_out_twice() {
    const KEYS: usize = 60;
    // Several processes on one store: between them only the store's expectations stand. Every read lets the others go
    // first, so that they all see the same key.
    let store = Store::new(Db::new(Yielding::default()));
    let processes = [on(&store, |_| {}), on(&store, |_| {}), on(&store, |_| {}), on(&store, |_| {})];
    let alice = user(&processes[0], "alice").await;
    log_in(&processes[0], &alice, "ONE").await;
    processes[0].upload_keys(&alice, device_id!("ONE"), one_time(0..KEYS)).await.unwrap();
    let claims = (0..KEYS + 10).map(|n| claimed(&processes[n % 4], &alice, "ONE"));
    let handed_out: Vec<_> = join_all(claims).await.into_iter().flatten().collect();
    assert_eq!(handed_out.len(), KEYS);
    assert_eq!(handed_out.iter().collect::<BTreeSet<_>>().len(), KEYS);
    // A process that starts afterwards has none left either.
    let restarted = on(&store, |_| {});
    assert_eq!(claimed(&restarted, &alice, "ONE").await, None);
    assert_eq!(one_time_left(&restarted, &alice, device_id!("ONE")).await, 0);
}

#[tokio::test]
async fn the_fallback_key_stays_and_is_marked_used() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    let fallback = |id: &str| {
        let id = format!("signed_curve25519:{id}").try_into().unwrap();
        let key = raw(&json!({ "key": "k", "signatures": {}, "fallback": true }));
        KeyUpload { fallback_keys: [(id, key)].into(), ..KeyUpload::default() }
    };
    let unused = async || {
        let reader = accounts.store().read();
        accounts.key_counts(&reader, &alice, device_id!("ONE")).await.unwrap().unused_fallback.len()
    };
    accounts.upload_keys(&alice, device_id!("ONE"), one_time(0..1)).await.unwrap();
    accounts.upload_keys(&alice, device_id!("ONE"), fallback("F1")).await.unwrap();
    assert_eq!(unused().await, 1);
    assert_eq!(claimed(&accounts, &alice, "ONE").await.unwrap(), "signed_curve25519:K0000");
    assert_eq!(unused().await, 1);
    for _ in 0..2 {
        assert_eq!(claimed(&accounts, &alice, "ONE").await.unwrap(), "signed_curve25519:F1");
        assert_eq!(unused().await, 0);
    }
    accounts.upload_keys(&alice, device_id!("ONE"), fallback("F2")).await.unwrap();
    assert_eq!(unused().await, 1);
    accounts.log_out(&alice, device_id!("ONE")).await.unwrap();
    assert_eq!(claimed(&accounts, &alice, "ONE").await, None);
}

#[tokio::test]
async fn the_stream_has_each_user_once() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let bob = user(&accounts, "bob").await;
    for (user, device, seed) in [(&alice, "ONE", 1), (&bob, "BOB", 2), (&alice, "TWO", 3)] {
        log_in(&accounts, user, device).await;
        let upload = with_device(&device_keys(user, device, &Signer::new(seed)));
        accounts.upload_keys(user, device.into(), upload).await.unwrap();
    }
    let reader = accounts.store().read();
    let changes = accounts.device_list_changes(&reader, Position(0), None, 10).await.unwrap();
    assert_eq!(changes.iter().map(|change| &change.user).collect::<Vec<_>>(), [&bob, &alice]);
    assert!(changes[1].previous > Position(0) && changes[1].previous < changes[0].position);
    assert_eq!(accounts.device_list_change(&reader, &alice).await.unwrap().as_ref(), Some(&changes[1]));
    let first = accounts.device_list_changes(&reader, Position(0), None, 1).await.unwrap();
    let second = accounts.device_list_changes(&reader, Position(0), first.last(), 1).await.unwrap();
    assert_eq!([first, second].concat(), changes);
    let before = changes[1].position;
    accounts.log_out(&alice, device_id!("ONE")).await.unwrap();
    let reader = accounts.store().read();
    let changes = accounts.device_list_changes(&reader, before, None, 10).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].previous, before);
}
