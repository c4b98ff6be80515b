//! Device keys, one-time keys, cross-signing, device lists.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use chappe_kv::Db;
use chappe_store::{
    Position, Store, Tx,
    accounts_keys::{KeySignatures, SignatureChanges},
};
use futures_util::future::join_all;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ruma::{
    DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId, UserId, device_id, serde::Raw,
    signatures::to_canonical_json_string_for_signing, user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{log_in, on, server, server_with, user, yielding::Yielding};
use crate::{Accounts, Claim, CrossSigningUpload, Error, KeyUpload, RemoteUpdate, Replace};

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

struct CrossSigning {
    master: Signer,
    self_signing: Signer,
    user_signing: Signer,
}

impl CrossSigning {
    fn new(seed: u8) -> Self {
        Self {
            master: Signer::new(seed),
            self_signing: Signer::new(seed + 1),
            user_signing: Signer::new(seed + 2),
        }
    }

    fn key(user: &UserId, usage: &str, key: &Signer, by: Option<&Signer>) -> Value {
        let id = format!("ed25519:{}", key.public());
        let mut object = json!({ "user_id": user, "usage": [usage], "keys": { id: key.public() } });
        if let Some(by) = by {
            by.sign(&mut object, user, &by.public());
        }
        object
    }

    fn upload(&self, user: &UserId) -> CrossSigningUpload {
        let by = Some(&self.master);
        CrossSigningUpload {
            master: Some(raw(&Self::key(user, "master", &self.master, None))),
            self_signing: Some(raw(&Self::key(user, "self_signing", &self.self_signing, by))),
            user_signing: Some(raw(&Self::key(user, "user_signing", &self.user_signing, by))),
        }
    }
}

#[tokio::test]
async fn cross_signing_keys_are_replaced_only_with_authentication() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let (first, second) = (CrossSigning::new(10), CrossSigning::new(20));
    let needs =
        async |upload: &CrossSigningUpload| accounts.cross_signing_needs_auth(&alice, upload).await.unwrap();
    let upload = first.upload(&alice);
    assert!(!needs(&upload).await);
    let without_master = CrossSigningUpload { master: None, ..upload.clone() };
    let outcome = accounts.upload_cross_signing(&alice, without_master.clone(), Replace::Refused).await;
    assert!(matches!(outcome, Err(Error::Invalid(_))));
    accounts.upload_cross_signing(&alice, upload.clone(), Replace::Refused).await.unwrap();
    assert!(!needs(&upload).await);
    accounts.upload_cross_signing(&alice, upload, Replace::Refused).await.unwrap();

    let other = second.upload(&alice);
    assert!(needs(&other).await);
    let outcome = accounts.upload_cross_signing(&alice, other.clone(), Replace::Refused).await;
    assert!(matches!(outcome, Err(Error::Forbidden(_))));
    // A self-signing key of another master is not believed, and neither is somebody else's key.
    let mixed = CrossSigningUpload { master: None, ..other.clone() };
    let outcome = accounts.upload_cross_signing(&alice, mixed, Replace::Allowed).await;
    assert!(matches!(outcome, Err(Error::InvalidSignature(_))));
    let outcome = accounts.cross_signing_needs_auth(&alice, &second.upload(user_id!("@bob:hs1"))).await;
    assert!(matches!(outcome, Err(Error::Invalid(_))));
    accounts.upload_cross_signing(&alice, other, Replace::Allowed).await.unwrap();

    let mine = accounts.public_keys(Some(&alice), &alice, &[]).await.unwrap();
    assert!(mine.user_signing.is_some());
    assert!(mine.master.unwrap().json().get().contains(&second.master.public()));
    for asker in [Some(user_id!("@bob:hs1")), None] {
        let shown = accounts.public_keys(asker, &alice, &[]).await.unwrap();
        assert!(shown.self_signing.is_some() && shown.user_signing.is_none());
    }
}

async fn sign_up(accounts: &Accounts, name: &str, seed: u8) -> (OwnedUserId, Signer, CrossSigning) {
    let user = user(accounts, name).await;
    log_in(accounts, &user, "ONE").await;
    let (device, keys) = (Signer::new(seed), CrossSigning::new(seed + 1));
    let upload = with_device(&device_keys(&user, "ONE", &device));
    accounts.upload_keys(&user, device_id!("ONE"), upload).await.unwrap();
    accounts.upload_cross_signing(&user, keys.upload(&user), Replace::Refused).await.unwrap();
    (user, device, keys)
}

async fn sign(accounts: &Accounts, signer: &UserId, user: &UserId, key: &str, object: &Value) -> bool {
    let keys = BTreeMap::from([(key.to_owned(), to_raw_value(object).unwrap())]);
    let by_user = BTreeMap::from([(user.to_owned(), keys)]);
    accounts.upload_signatures(signer, &by_user).await.unwrap().is_empty()
}

#[tokio::test]
async fn signatures_are_verified_and_shown_to_whom_they_concern() {
    let accounts = server();
    let (alice, device, mine) = sign_up(&accounts, "alice", 30).await;
    let (bob, _, bobs) = sign_up(&accounts, "bob", 40).await;

    let mut own = device_keys(&alice, "ONE", &device);
    let mut forged = own.clone();
    bobs.self_signing.sign(&mut forged, &alice, &mine.self_signing.public());
    assert!(!sign(&accounts, &alice, &alice, "ONE", &forged).await);
    let mut altered = own.clone();
    altered["algorithms"] = json!([]);
    mine.self_signing.sign(&mut altered, &alice, &mine.self_signing.public());
    assert!(!sign(&accounts, &alice, &alice, "ONE", &altered).await);
    mine.self_signing.sign(&mut own, &alice, &mine.self_signing.public());
    assert!(!sign(&accounts, &bob, &alice, "ONE", &own).await);
    assert!(!sign(&accounts, &alice, &alice, "NONE", &own).await);
    assert!(sign(&accounts, &alice, &alice, "ONE", &own).await);

    let mut master = CrossSigning::key(&alice, "master", &mine.master, None);
    device.sign(&mut master, &alice, "ONE");
    assert!(sign(&accounts, &alice, &alice, &mine.master.public(), &master).await);

    let mut of_bob = CrossSigning::key(&bob, "master", &bobs.master, None);
    mine.user_signing.sign(&mut of_bob, &alice, &mine.user_signing.public());
    let before = accounts.store().read().position();
    assert!(sign(&accounts, &alice, &bob, &bobs.master.public(), &of_bob).await);
    let reader = accounts.store().read();
    assert!(accounts.device_list_changes(&reader, before, None, 10).await.unwrap().is_empty());
    for (signer, signed) in [(&alice, vec![bob.clone()]), (&bob, Vec::new())] {
        let found = accounts.signature_changes(&reader, signer, before, reader.position()).await.unwrap();
        assert_eq!(found, signed, "only the signer sees it, so only the signer is told");
    }
    assert!(sign(&accounts, &alice, &bob, &bobs.master.public(), &of_bob).await);
    assert!(sign(&accounts, &alice, &alice, "ONE", &own).await);
    assert_eq!(
        accounts.store().read().position(),
        reader.position(),
        "what is there already changes nothing"
    );

    let mut tx = Tx::new();
    tx.delete_prefix::<KeySignatures>(&bob);
    accounts.store().commit(tx).await.unwrap();
    assert!(sign(&accounts, &alice, &bob, &bobs.master.public(), &of_bob).await);
    let rows = accounts.store().read().scan_all::<SignatureChanges>(&alice).await.unwrap();
    assert_eq!(rows.len(), 1, "the last time that somebody was signed is kept");

    let shown = accounts.public_keys(Some(&bob), &alice, &["ONE".into()]).await.unwrap();
    let text = shown.devices[device_id!("ONE")].json().get().to_owned();
    assert!(text.contains(&mine.self_signing.public()) && text.contains("ONE of @alice:hs1"));
    assert!(shown.master.unwrap().json().get().contains("ed25519:ONE"));
    let federated = accounts.public_keys(None, &alice, &[]).await.unwrap();
    assert!(!federated.devices[device_id!("ONE")].json().get().contains("device_display_name"));
    // Only Alice sees that she verified Bob.
    for (asker, sees) in [(Some(&*alice), true), (Some(&*bob), false), (None, false)] {
        let keys = accounts.public_keys(asker, &bob, &[]).await.unwrap();
        assert_eq!(keys.master.unwrap().json().get().contains("@alice:hs1"), sees);
    }
    // New keys of the device are not signed yet.
    let upload = with_device(&device_keys(&alice, "ONE", &Signer::new(77)));
    accounts.upload_keys(&alice, device_id!("ONE"), upload).await.unwrap();
    let shown = accounts.public_keys(Some(&bob), &alice, &[]).await.unwrap();
    assert!(!shown.devices[device_id!("ONE")].json().get().contains(&mine.self_signing.public()));
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

#[tokio::test]
async fn remote_devices_are_kept_as_fetched_without_the_bad_ones() {
    let accounts = server();
    let carol = user_id!("@carol:elsewhere");
    let signer = Signer::new(5);
    let good = (Some(raw(&device_keys(carol, "C1", &signer))), Some("Carol's".to_owned()));
    let foreign = (Some(raw(&device_keys(user_id!("@eve:elsewhere"), "C2", &signer))), None);
    let keys = CrossSigning::new(50);
    let update = RemoteUpdate {
        stream_id: Some(7),
        devices: [("C1".into(), Some(good)), ("C2".into(), Some(foreign))].into(),
        complete: true,
        master: Some(raw(&CrossSigning::key(carol, "master", &keys.master, None))),
        self_signing: Some(raw(&json!({ "user_id": "@eve:elsewhere" }))),
    };
    let same = RemoteUpdate { self_signing: None, ..update.clone() };
    assert!(accounts.update_remote(user_id!("@alice:hs1"), update.clone()).await.is_err());
    accounts.update_remote(carol, update).await.unwrap();
    let known = accounts.public_keys(Some(user_id!("@alice:hs1")), carol, &[]).await.unwrap();
    assert_eq!(known.devices.keys().collect::<Vec<_>>(), ["C1"]);
    assert!(known.master.is_some() && known.self_signing.is_none());
    assert!(!accounts.remote_list(carol).await.unwrap().unwrap().stale);

    let heard = async || {
        accounts.device_list_change(&accounts.store().read(), carol).await.unwrap().unwrap().position
    };
    let before = heard().await;
    accounts.update_remote(carol, same).await.unwrap();
    assert_eq!(heard().await, before);

    accounts.mark_stale(carol).await.unwrap();
    assert_eq!(accounts.stale_lists(None, 10).await.unwrap(), [carol]);
    let list = accounts.remote_list(carol).await.unwrap().unwrap();
    assert!(list.stale && list.stream_id == 7);
    let update = RemoteUpdate { stream_id: Some(8), complete: true, ..RemoteUpdate::default() };
    accounts.update_remote(carol, update).await.unwrap();
    assert!(accounts.stale_lists(None, 10).await.unwrap().is_empty());
    assert!(accounts.public_keys(None, carol, &[]).await.unwrap().devices.is_empty());
    let before = heard().await;
    accounts.doubt_known(&[carol.to_owned()]).await.unwrap();
    assert!(accounts.remote_list(carol).await.unwrap().unwrap().stale);
    assert_eq!(heard().await, before, "nobody is told yet");
    assert!(
        accounts.stale_lists(None, 10).await.unwrap().is_empty(),
        "nothing is fetched before somebody asks"
    );
    accounts.doubt_all().await.unwrap();
    assert_eq!(accounts.stale_lists(None, 10).await.unwrap(), [carol]);
    for stream_id in [9, 10] {
        accounts.miss_update(carol, stream_id).await.unwrap();
        assert_eq!(accounts.stale_lists(None, 10).await.unwrap(), [carol]);
    }
    assert_eq!(accounts.remote_list(carol).await.unwrap().unwrap().heard, [9, 10]);
    let told = heard().await;
    assert_ne!(told, before);
    accounts.miss_update(carol, 11).await.unwrap();
    assert_eq!(heard().await, told, "who was told is not told again");
}

#[tokio::test]
async fn a_user_of_another_server_has_so_many_devices() {
    let accounts = server();
    let carol = user_id!("@carol:elsewhere");
    let named = |names: std::ops::Range<usize>, name: &str| -> RemoteUpdate {
        let device = |n| (format!("D{n:04}").into(), Some((None, Some(name.to_owned()))));
        RemoteUpdate { devices: names.map(device).collect(), ..RemoteUpdate::default() }
    };
    let ids = async || accounts.remote_device_ids(carol).await.unwrap();
    let all = RemoteUpdate { complete: true, ..named(0..999, "a") };
    accounts.update_remote(carol, all).await.unwrap();
    accounts.update_remote(carol, named(998..1_005, "b")).await.unwrap();
    assert_eq!((ids().await.len(), ids().await.last().unwrap().as_str()), (1_000, "D0999"));
    accounts.update_remote(carol, named(2_000..2_001, "c")).await.unwrap();
    assert_eq!(ids().await.last().unwrap().as_str(), "D0999", "no more are added");
    let gone = RemoteUpdate { devices: [("D0000".into(), None)].into(), ..RemoteUpdate::default() };
    accounts.update_remote(carol, gone).await.unwrap();
    accounts.update_remote(carol, named(2_000..2_001, "c")).await.unwrap();
    assert_eq!(ids().await.last().unwrap().as_str(), "D2000");
    let too_many = RemoteUpdate { complete: true, ..named(0..1_500, "d") };
    accounts.update_remote(carol, too_many).await.unwrap();
    assert_eq!(ids().await.len(), 1_000);
}

#[tokio::test]
async fn what_is_kept_of_remote_lists_tells_whom_to_tell_and_what_to_fetch() {
    let accounts = server();
    let carol = user_id!("@carol:elsewhere");
    let list =
        |stream_id| RemoteUpdate { stream_id: Some(stream_id), complete: true, ..RemoteUpdate::default() };
    let heard = async || {
        accounts.device_list_change(&accounts.store().read(), carol).await.unwrap().map(|c| c.position)
    };
    accounts.update_remote(carol, list(1)).await.unwrap();
    accounts.miss_update(carol, 2).await.unwrap();
    let told = heard().await;
    assert!(told.is_some());
    accounts.note_given(&[carol.to_owned()]).await.unwrap();
    accounts.miss_update(carol, 3).await.unwrap();
    let again = heard().await;
    assert_ne!(again, told, "somebody was given keys since");
    accounts.miss_update(carol, 4).await.unwrap();
    assert_eq!(heard().await, again);

    // What may have been written before the news leaves all as it is.
    assert!(!accounts.update_remote_while(carol, list(4), || false).await.unwrap());
    assert!(accounts.remote_list(carol).await.unwrap().unwrap().stale);
    assert_eq!(accounts.stale_lists(None, 10).await.unwrap(), [carol]);

    accounts.note_given(&[carol.to_owned()]).await.unwrap();
    accounts.update_remote(carol, list(4)).await.unwrap();
    let told = heard().await;
    assert_ne!(told, again, "what was given may differ");
    accounts.update_remote(carol, list(4)).await.unwrap();
    assert_eq!(heard().await, told);

    let dora = user_id!("@dora:elsewhere");
    accounts.doubt_known(&[carol.to_owned(), dora.to_owned()]).await.unwrap();
    assert!(accounts.remote_list(carol).await.unwrap().unwrap().stale);
    assert!(accounts.remote_list(dora).await.unwrap().is_none());
    assert_eq!(heard().await, told, "nobody is told yet");
    accounts.note_given(&[dora.to_owned()]).await.unwrap();
    assert!(accounts.remote_list(dora).await.unwrap().unwrap().stale, "it was never fetched");
}
