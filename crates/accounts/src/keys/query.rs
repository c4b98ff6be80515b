//! `/keys/query`: public keys as one asker may see them, with the signatures uploaded since.

use std::collections::BTreeMap;

use chappe_store::{
    Direction, Json, Reader,
    accounts::Devices,
    accounts_keys::{CrossSigningKeys, DeviceKeys, KeySignatures, RemoteDevices},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, encryption::CrossSigningKey, serde::Raw};
use serde_json::{Value, json};

use super::{PublicKeys, Usage, form};
use crate::{Accounts, Error};

/// Devices of one user that are looked at.
const MOST_DEVICES: usize = 2_000;
/// Signatures of one signer on one user's keys that are looked at.
const MOST_SIGNATURES: usize = 10_000;

/// Signatures by signed device or public key: `(signer, key id, signature)`.
type Signatures = BTreeMap<String, Vec<(OwnedUserId, String, String)>>;

impl Accounts {
    /// Public keys of a user as `asker` may see them: of a local user, or of a remote user as cached. An empty list
    /// of devices asks for all. `asker` is `None` for another server.
    pub async fn public_keys(
        &self,
        asker: Option<&UserId>,
        user: &UserId,
        devices: &[OwnedDeviceId],
    ) -> Result<PublicKeys, Error> {
        let reader = self.store().read();
        let signatures = signatures(&reader, user, asker).await?;
        let found = if self.is_local(user) {
            let names = asker.is_some();
            local_devices(&reader, user, devices)
                .await?
                .into_iter()
                .map(move |(id, keys, name)| (id, keys, name.filter(|_| names)))
                .collect()
        } else {
            remote_devices(&reader, user, devices).await?
        };
        let mut answer = PublicKeys::default();
        for (id, keys, name) in found {
            let keys = dress(&keys, signatures.get(id.as_str()), name.as_deref())?;
            answer.devices.insert(id, Raw::from_json(keys));
        }
        let slots = Usage::ALL.map(|usage| (user.to_owned(), usage as u8));
        for (usage, key) in Usage::ALL.into_iter().zip(reader.get_many::<CrossSigningKeys>(&slots).await?) {
            let Some(key) = key else { continue };
            let object = read_object(&key)?;
            let signed = form::public_key(&object).and_then(|public| signatures.get(&public));
            let key = Raw::from_json(dress(&key, signed, None)?);
            match usage {
                Usage::Master => answer.master = Some(key),
                Usage::SelfSigning => answer.self_signing = Some(key),
                Usage::UserSigning if asker == Some(user) => answer.user_signing = Some(key),
                Usage::UserSigning => {}
            }
        }
        Ok(answer)
    }

    /// A remote user's master key, as the user's server has just given it, with the signatures that `asker` made.
    pub async fn with_signatures_of(
        &self,
        asker: &UserId,
        user: &UserId,
        key: Raw<CrossSigningKey>,
    ) -> Result<Raw<CrossSigningKey>, Error> {
        // What is no key cannot have been signed.
        let Ok(object) = form::object(key.json().get()) else { return Ok(key) };
        let Some(public) = form::public_key(&object) else { return Ok(key) };
        let reader = self.store().read();
        let signatures = signatures(&reader, user, Some(asker)).await?;
        let Some(signed) = signatures.get(&public) else { return Ok(key) };
        Ok(Raw::from_json(dress(key.json().get().as_bytes(), Some(signed), None)?))
    }

    /// A local user's devices with keys as another server may see them, with their names, which the caller may
    /// keep to itself.
    pub async fn federated_devices(
        &self,
        user: &UserId,
    ) -> Result<Vec<(OwnedDeviceId, Raw<ruma::encryption::DeviceKeys>, Option<String>)>, Error> {
        let reader = self.store().read();
        let signatures = signatures(&reader, user, None).await?;
        let mut devices = Vec::new();
        for (id, keys, name) in local_devices(&reader, user, &[]).await? {
            let keys = dress(&keys, signatures.get(id.as_str()), None)?;
            devices.push((id, Raw::from_json(keys), name));
        }
        Ok(devices)
    }
}

type Found = Vec<(OwnedDeviceId, Vec<u8>, Option<String>)>;

async fn local_devices(reader: &Reader<'_>, user: &UserId, wanted: &[OwnedDeviceId]) -> Result<Found, Error> {
    let rows: Vec<_> = if wanted.is_empty() {
        reader.scan::<DeviceKeys>(&user.to_owned(), Direction::Forward, MOST_DEVICES).await?
    } else {
        let keys: Vec<_> =
            wanted.iter().take(MOST_DEVICES).map(|device| (user.to_owned(), device.clone())).collect();
        let found = reader.get_many::<DeviceKeys>(&keys).await?;
        keys.into_iter().zip(found).filter_map(|(key, found)| Some((key, found?))).collect()
    };
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
    let devices = reader.get_many::<Devices>(&keys).await?;
    let named = |((key, keys), device): (((_, OwnedDeviceId), Vec<u8>), Option<Json<_>>)| {
        let name = device.and_then(|Json(device): Json<chappe_store::accounts::Device>| device.name);
        (key.1, keys, name)
    };
    Ok(rows.into_iter().zip(devices).map(named).collect())
}

async fn remote_devices(
    reader: &Reader<'_>,
    user: &UserId,
    wanted: &[OwnedDeviceId],
) -> Result<Found, Error> {
    let rows = reader.scan::<RemoteDevices>(&user.to_owned(), Direction::Forward, MOST_DEVICES).await?;
    let found = rows.into_iter().filter_map(|((_, id), Json(device))| {
        let keys = device.keys?.get().as_bytes().to_vec();
        (wanted.is_empty() || wanted.contains(&id)).then_some((id, keys, device.name))
    });
    Ok(found.collect())
}

/// The signatures on a user's keys that an asker sees: the user's own, and those the asker made.
async fn signatures(reader: &Reader<'_>, user: &UserId, asker: Option<&UserId>) -> Result<Signatures, Error> {
    let mut by_key = Signatures::new();
    for signer in [Some(user), asker.filter(|asker| *asker != user)].into_iter().flatten() {
        let prefix = (user.to_owned(), signer.to_owned());
        let rows = reader.scan::<KeySignatures>(&prefix, Direction::Forward, MOST_SIGNATURES).await?;
        for ((_, signer, key, key_id), signature) in rows {
            by_key.entry(key).or_default().push((signer, key_id, signature));
        }
    }
    Ok(by_key)
}

pub(super) fn read_object(bytes: &[u8]) -> Result<form::Object, Error> {
    Ok(serde_json::from_slice(bytes).map_err(|_| chappe_store::Error::Corrupt("key"))?)
}

/// A key with the signatures uploaded for it and the name of its device.
fn dress(
    bytes: &[u8],
    signatures: Option<&Vec<(OwnedUserId, String, String)>>,
    name: Option<&str>,
) -> Result<Box<serde_json::value::RawValue>, Error> {
    let mut object = read_object(bytes)?;
    object.remove("unsigned");
    for (signer, key_id, signature) in signatures.into_iter().flatten() {
        let all = object.entry("signatures").or_insert_with(|| json!({}));
        let Value::Object(all) = all else { continue };
        let of_signer = all.entry(signer.as_str()).or_insert_with(|| json!({}));
        if let Value::Object(of_signer) = of_signer {
            of_signer.insert(key_id.clone(), Value::from(signature.as_str()));
        }
    }
    if let Some(name) = name {
        object.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
    }
    serde_json::value::to_raw_value(&object).map_err(|error| Error::BadJson(error.to_string()))
}
