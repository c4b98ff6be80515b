//! `/keys/upload`: a device's identity keys, one-time keys and fallback keys.

use std::collections::BTreeMap;

use chappe_store::{
    Json, LogEntry, Reader, Tx,
    accounts::Devices,
    accounts_keys::{
        DeviceKeys, FallbackKey, FallbackKeys, KeyHead, KeyHeads, KeySignatures, OneTimeKeyOrder,
        OneTimeKeys, SpentKeys,
    },
};
use ruma::{DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId, UserId};
use serde_json::Value;

use super::{KeyCounts, KeyUpload, claim, form};
use crate::{Accounts, Error, retry::retry};

/// One-time keys of one request.
const MOST_AT_ONCE: usize = 500;

type DeviceKey = (OwnedUserId, OwnedDeviceId);

impl Accounts {
    /// Takes a device's keys in, after checking them: user, device, algorithms, shape, size. A one-time key that is
    /// there already is passed over when it is the same and refused ([`Error::Invalid`]) when it is another; one that was
    /// handed out before is passed over, as the device may not have heard that it came. With other identity keys the
    /// device has lost what it had: its one-time and fallback keys of before are gone.
    pub async fn upload_keys(
        &self,
        user: &UserId,
        device: &DeviceId,
        upload: KeyUpload,
    ) -> Result<KeyCounts, Error> {
        check_upload(user, device, &upload)?;
        let _turn = self.turn(user).await;
        retry!({
            let reader = self.store().read();
            let key = (user.to_owned(), device.to_owned());
            let there = reader.get::<Devices>(&key).await?.ok_or(Error::NotFound("device"))?;
            let mut tx = Tx::new();
            self.draft_identity(&reader, &mut tx, &key, &upload).await?;
            let head = self.draft_prekeys(&reader, &mut tx, &key, &upload).await?;
            drop(reader);
            if !tx.is_empty() {
                tx.expect::<Devices>(&key, Some(&there));
                self.store().commit(tx).await?;
            }
            Ok(counts(&head))
        })
    }

    pub(crate) async fn draft_identity(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        key: &DeviceKey,
        upload: &KeyUpload,
    ) -> Result<(), Error> {
        let Some(new) = &upload.device_keys else { return Ok(()) };
        let new = new.json().get();
        let old = reader.get::<DeviceKeys>(key).await?;
        if let Some(old) = &old {
            let text = std::str::from_utf8(old).map_err(|_| chappe_store::Error::Corrupt("device keys"))?;
            let (old, new) = (form::object(text)?, form::object(new)?);
            if old == new {
                return Ok(());
            }
            if !form::same_but_signatures(&old, &new) {
                // What was signed is no more.
                tx.delete_prefix::<KeySignatures>(&(key.0.clone(), key.0.clone(), key.1.to_string()));
            }
        }
        tx.expect::<DeviceKeys>(key, old.as_ref()).put::<DeviceKeys>(key, &new.as_bytes().to_vec());
        self.draft_list_change(reader, tx, &key.0).await
    }

    /// One-time and fallback keys; gives the head as it will be. Of a device that begins anew nothing is left of before.
    pub(crate) async fn draft_prekeys(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        key: &DeviceKey,
        upload: &KeyUpload,
    ) -> Result<KeyHead, Error> {
        let old = reader.get::<KeyHeads>(key).await?;
        let mut head = old.clone().map(|Json(head)| head).unwrap_or_default();
        let anew = begins_anew(reader, key, upload).await?;
        if anew {
            tx.delete_prefix::<OneTimeKeys>(key).delete_prefix::<OneTimeKeyOrder>(key);
            tx.delete_prefix::<FallbackKeys>(key);
            head = KeyHead { revision: head.revision, ..KeyHead::default() };
        }
        let fresh = fresh_keys(reader, key, upload, anew).await?;
        for (index, (row, bytes)) in (0_u16..).zip(&fresh) {
            tx.put::<OneTimeKeys>(row, bytes);
            let prefix = (key.0.clone(), key.1.clone(), row.2.clone());
            tx.put_at_position::<OneTimeKeyOrder>(&prefix, &index, &row.3);
            *head.counts.entry(row.2.clone()).or_default() += 1;
        }
        if !fresh.is_empty() && head.counts.values().sum::<u32>() > self.config().limits.one_time_keys {
            return Err(Error::TooMany("one-time keys"));
        }
        for (id, fallback) in &upload.fallback_keys {
            let (algorithm, id) = form::check_one_time_key(id.as_str(), fallback.json().get())?;
            let row = FallbackKey { id: id.to_owned(), key: fallback.json().to_owned() };
            let slot = (key.0.clone(), key.1.clone(), algorithm.to_owned());
            let known = reader.get::<FallbackKeys>(&slot).await?;
            let is_same =
                |Json(known): Json<FallbackKey>| known.id == row.id && known.key.get() == row.key.get();
            if !anew && known.is_some_and(is_same) {
                continue;
            }
            tx.put::<FallbackKeys>(&slot, &Json(row));
            head.unused_fallback.insert(algorithm.to_owned());
        }
        let changed = old.as_ref().is_none_or(|Json(old)| *old != head) || !fresh.is_empty();
        if anew || changed && !(upload.one_time_keys.is_empty() && upload.fallback_keys.is_empty()) {
            head.revision += 1;
            tx.expect::<KeyHeads>(key, old.as_ref()).put::<KeyHeads>(key, &Json(head.clone()));
            tx.log(LogEntry::OneTimeKeys { user: key.0.clone(), device: key.1.clone() });
        }
        Ok(head)
    }

    /// What a device has left to hand out: one point read.
    pub async fn key_counts(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<KeyCounts, Error> {
        let head = reader.get::<KeyHeads>(&(user.to_owned(), device.to_owned())).await?;
        Ok(counts(&head.map(|Json(head)| head).unwrap_or_default()))
    }
}

/// Checks keys before they are taken in: user, device, algorithms, shape, size.
pub(crate) fn check_upload(user: &UserId, device: &DeviceId, upload: &KeyUpload) -> Result<(), Error> {
    if let Some(keys) = &upload.device_keys {
        form::check_device_keys(keys.json().get(), user, device)?;
    }
    if upload.one_time_keys.len() > MOST_AT_ONCE || upload.fallback_keys.len() > 32 {
        return Err(Error::TooMany("keys in one request"));
    }
    for (id, key) in upload.one_time_keys.iter().chain(&upload.fallback_keys) {
        form::check_one_time_key(id.as_str(), key.json().get())?;
    }
    Ok(())
}

/// Whether an upload has other identity keys than are there: the device has lost those and all that belonged to them.
async fn begins_anew(reader: &Reader<'_>, key: &DeviceKey, upload: &KeyUpload) -> Result<bool, Error> {
    let Some(new) = &upload.device_keys else { return Ok(false) };
    let Some(old) = reader.get::<DeviceKeys>(key).await? else { return Ok(false) };
    let old = std::str::from_utf8(&old).map_err(|_| chappe_store::Error::Corrupt("device keys"))?;
    let (old, new) = (form::object(old)?, form::object(new.json().get())?);
    Ok(old.get("keys") != new.get("keys"))
}

/// Where a one-time key is kept: user, device, algorithm, key id.
pub(super) type KeyRow = (OwnedUserId, OwnedDeviceId, String, String);

/// The one-time keys of an upload that never came before. What is there is not looked at if the device begins anew.
async fn fresh_keys(
    reader: &Reader<'_>,
    key: &DeviceKey,
    upload: &KeyUpload,
    anew: bool,
) -> Result<Vec<(KeyRow, Vec<u8>)>, Error> {
    let (mut rows, mut keys, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for (id, one_time) in &upload.one_time_keys {
        let json = one_time.json().get();
        let (algorithm, id) = form::check_one_time_key(id.as_str(), json)?;
        let row = (key.0.clone(), key.1.clone(), algorithm.to_owned(), id.to_owned());
        marks.push(claim::mark(&row, json));
        keys.push(row.clone());
        rows.push((row, json.as_bytes().to_vec()));
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (there, claimed) = reader.get_both::<OneTimeKeys, SpentKeys>(&keys, &marks).await?;
    let mut fresh = Vec::new();
    for (((row, bytes), there), claimed) in rows.into_iter().zip(there).zip(claimed) {
        let Some(there) = there.filter(|_| !anew) else {
            if claimed.is_none() {
                fresh.push((row, bytes));
            }
            continue;
        };
        let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        if value(&there) != value(&bytes) {
            return Err(Error::invalid(format!("one-time key {}:{} exists already", row.2, row.3)));
        }
    }
    Ok(fresh)
}

fn counts(head: &KeyHead) -> KeyCounts {
    let mut one_time_keys: BTreeMap<OneTimeKeyAlgorithm, u32> = BTreeMap::new();
    one_time_keys.insert(OneTimeKeyAlgorithm::SignedCurve25519, 0);
    for (algorithm, count) in &head.counts {
        one_time_keys.insert(algorithm.as_str().into(), *count);
    }
    let unused_fallback = head.unused_fallback.iter().map(|algorithm| algorithm.as_str().into()).collect();
    KeyCounts { one_time_keys, unused_fallback }
}
