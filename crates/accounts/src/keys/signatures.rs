//! `/keys/signatures/upload`: signatures on the user's own devices and master key, and on others' master keys.

use std::collections::{BTreeMap, BTreeSet};

use chappe_store::{
    Json, LogEntry, Reader, Tx,
    accounts_keys::{CrossSigningKeys, DeviceKeys, KeySignatures, RemoteDevices, SignatureChanges},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde_json::{Value, value::RawValue};

use super::{Usage, form, query::read_object};
use crate::{Accounts, Error, retry::retry};

/// Objects of one request.
const MOST_AT_ONCE: usize = 1_000;

/// Signatures refused, with a reason, by signed user and signed device or public key.
type Refused = BTreeMap<OwnedUserId, BTreeMap<String, &'static str>>;

impl Accounts {
    /// Takes signatures in, by signed user and signed device or public key; gives those refused, with a reason. Each
    /// signature is verified, and only these are taken: on the signer's devices by the self-signing key, on the
    /// signer's master key by the signer's devices, on others' master keys by the signer's user-signing key. Those that
    /// are there already change nothing; of one on another's key the signer alone is told, as nobody else sees it.
    pub async fn upload_signatures(
        &self,
        signer: &UserId,
        uploaded: &BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
    ) -> Result<BTreeMap<OwnedUserId, BTreeMap<String, &'static str>>, Error> {
        if uploaded.values().map(BTreeMap::len).sum::<usize>() > MOST_AT_ONCE {
            return Err(Error::TooMany("signatures in one request"));
        }
        let _turn = self.turn(signer).await;
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            let (mut refused, mut signed) = (Refused::new(), BTreeSet::new());
            for (user, keys) in uploaded {
                let mut taken = false;
                for (key, json) in keys {
                    match proved(&reader, signer, user, key, json).await? {
                        Ok(signatures) => {
                            for (key_id, signature) in signatures {
                                let row = (user.clone(), signer.to_owned(), key.clone(), key_id);
                                tx.put::<KeySignatures>(&row, &signature);
                                taken = true;
                            }
                        }
                        Err(reason) => {
                            refused.entry(user.clone()).or_default().insert(key.clone(), reason);
                        }
                    }
                }
                if taken && user == signer {
                    self.draft_list_change(&reader, &mut tx, user).await?;
                } else if taken {
                    signed.insert(user);
                }
            }
            draft_signed(&reader, &mut tx, signer, &signed).await?;
            drop(reader);
            if !tx.is_empty() {
                self.store().commit(tx).await?;
            }
            Ok(refused)
        })
    }
}

/// Says whose master keys a user has signed: one row for each, the last.
async fn draft_signed(
    reader: &Reader<'_>,
    tx: &mut Tx,
    signer: &UserId,
    signed: &BTreeSet<&OwnedUserId>,
) -> Result<(), Error> {
    if signed.is_empty() {
        return Ok(());
    }
    let signer = signer.to_owned();
    for (before, ()) in reader.scan_all::<SignatureChanges>(&signer).await? {
        if signed.contains(&before.2) {
            tx.delete::<SignatureChanges>(&before);
        }
    }
    for user in signed {
        tx.put_at_position::<SignatureChanges>(&signer, *user, &());
    }
    tx.log(LogEntry::KeySignatures { user: signer });
    Ok(())
}

/// The signatures of `signer` on one key that are genuine and new, or why none is taken.
async fn proved(
    reader: &Reader<'_>,
    signer: &UserId,
    user: &UserId,
    key: &str,
    json: &RawValue,
) -> Result<Result<Vec<(String, String)>, &'static str>, Error> {
    let Ok(object) = form::object(json.get()) else { return Ok(Err("not a key")) };
    let Some(stored) = signed_key(reader, user, key).await? else { return Ok(Err("no such key")) };
    if !form::same_but_signatures(&stored.object, &object) {
        return Ok(Err("not the key that is stored"));
    }
    let signatures = object.get("signatures").and_then(|all| all.get(signer.as_str()));
    let Some(Value::Object(signatures)) = signatures else { return Ok(Err("no signature of yours")) };
    let mut genuine = Vec::new();
    for (key_id, signature) in signatures {
        let Some(signature) = signature.as_str() else { return Ok(Err("a signature is a string")) };
        if form::signature(&stored.object, signer, key_id) == Some(signature) {
            continue;
        }
        let Some(public) = signing_key(reader, signer, user, &stored, key_id).await? else {
            return Ok(Err("a signature by a key that may not sign this"));
        };
        if !form::verifies(&object, &public, signature) {
            return Ok(Err("invalid signature"));
        }
        let row = (user.to_owned(), signer.to_owned(), key.to_owned(), key_id.clone());
        if reader.get::<KeySignatures>(&row).await?.as_deref() != Some(signature) {
            genuine.push((key_id.clone(), signature.to_owned()));
        }
    }
    Ok(Ok(genuine))
}

/// A key that is to be signed.
struct Signed {
    object: form::Object,
    device: bool,
}

async fn signed_key(reader: &Reader<'_>, user: &UserId, key: &str) -> Result<Option<Signed>, Error> {
    let row = (user.to_owned(), OwnedDeviceId::from(key));
    if let Some(bytes) = reader.get::<DeviceKeys>(&row).await? {
        return Ok(Some(Signed { object: read_object(&bytes)?, device: true }));
    }
    if let Some(Json(device)) = reader.get::<RemoteDevices>(&row).await?
        && let Some(keys) = device.keys
    {
        return Ok(Some(Signed { object: read_object(keys.get().as_bytes())?, device: true }));
    }
    let object = cross_signing(reader, user, Usage::Master).await?;
    let object = object.filter(|object| form::public_key(object).as_deref() == Some(key));
    Ok(object.map(|object| Signed { object, device: false }))
}

async fn cross_signing(
    reader: &Reader<'_>,
    user: &UserId,
    usage: Usage,
) -> Result<Option<form::Object>, Error> {
    let bytes = reader.get::<CrossSigningKeys>(&(user.to_owned(), usage as u8)).await?;
    bytes.map(|bytes| read_object(&bytes)).transpose()
}

/// The public key behind `key_id`, if it is one that may sign this.
async fn signing_key(
    reader: &Reader<'_>,
    signer: &UserId,
    user: &UserId,
    target: &Signed,
    key_id: &str,
) -> Result<Option<String>, Error> {
    let usage = match (signer == user, target.device) {
        (true, true) => Usage::SelfSigning,
        (false, false) => Usage::UserSigning,
        (false, true) => return Ok(None),
        (true, false) => {
            let Some(device) = key_id.strip_prefix("ed25519:") else { return Ok(None) };
            let row = (signer.to_owned(), OwnedDeviceId::from(device));
            let Some(bytes) = reader.get::<DeviceKeys>(&row).await? else { return Ok(None) };
            return Ok(form::device_key(&read_object(&bytes)?, key_id).map(str::to_owned));
        }
    };
    let key = cross_signing(reader, signer, usage).await?;
    let public = key.as_ref().and_then(form::public_key);
    Ok(public.filter(|public| key_id.strip_prefix("ed25519:") == Some(public.as_str())))
}
