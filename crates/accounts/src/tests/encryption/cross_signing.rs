//! Cross-signing keys, and what is signed with them.

use std::collections::BTreeMap;

use chappe_store::{
    Tx,
    accounts_keys::{KeySignatures, SignatureChanges},
};
use ruma::{OwnedUserId, UserId, device_id, user_id};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    super::{log_in, server, user},
    Signer, device_keys, raw, with_device,
};
use crate::{Accounts, CrossSigningUpload, Error, Replace};

/// A user's keys that sign keys.
pub(super) struct CrossSigning {
    pub(super) master: Signer,
    self_signing: Signer,
    user_signing: Signer,
}

impl CrossSigning {
    pub(super) fn new(seed: u8) -> Self {
        Self {
            master: Signer::new(seed),
            self_signing: Signer::new(seed + 1),
            user_signing: Signer::new(seed + 2),
        }
    }

    pub(super) fn key(user: &UserId, usage: &str, key: &Signer, by: Option<&Signer>) -> Value {
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
    let before = accounts.store().read().position();
    for same in [upload, CrossSigningUpload::default()] {
        accounts.upload_cross_signing(&alice, same, Replace::Refused).await.unwrap();
    }
    assert_eq!(accounts.store().read().position(), before, "what is there already changes nothing");

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
