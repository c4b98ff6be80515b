//! Dehydrated devices (MSC3814): a device nobody is logged in with, which keeps what it is sent for the next log-in.
//!
//! It is a device like any other but for one thing: no token stands for it. A user has one at most.

use chappe_store::{
    Json, Position, Reader, Tx,
    accounts::{Device, Devices},
    accounts_keys::{DehydratedDevice, DehydratedDevices},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Accounts, Error, KeyUpload, ToDeviceMessage, devices::check_new, keys::check_upload, retry::retry,
};

/// Bytes of the encrypted device: what one row holds.
const DATA_BYTES: usize = 63_000;
/// Messages of one answer, at most and if nobody says how many.
const PAGE: usize = 100;
/// How a token begins: what it is, and the version.
const TOKEN: &str = "dd1_";

/// A device that is put to sleep.
#[derive(Clone, Debug)]
pub struct Dehydrating {
    /// Its id.
    pub device: OwnedDeviceId,
    /// The device, encrypted by the client: an object with an `algorithm`.
    pub data: Box<RawValue>,
    /// Shown name.
    pub name: Option<String>,
    /// Its keys; the identity keys say `dehydrated`, and there is a fallback key.
    pub keys: KeyUpload,
}

/// Some of what waits for a dehydrated device.
#[derive(Clone, Debug)]
pub struct DehydratedMessages {
    /// The messages, oldest first.
    pub messages: Vec<ToDeviceMessage>,
    /// Whether others follow.
    pub more: bool,
    /// Where to go on: opaque.
    pub next: String,
}

impl Accounts {
    /// Puts a device to sleep in the place of the one that slept before, which ends with its keys and messages. The
    /// same id again replaces what is said of it and keeps its messages. [`Error::BadJson`], [`Error::Invalid`],
    /// [`Error::TooLarge`], [`Error::TooMany`].
    pub async fn dehydrate(&self, user: &UserId, new: &Dehydrating) -> Result<(), Error> {
        check(user, new)?;
        let _turn = self.turn(user).await;
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            let user = user.to_owned();
            let row = reader.get::<DehydratedDevices>(&user).await?;
            let before = row.as_ref().map(|Json(row)| row.device.clone());
            tx.expect::<DehydratedDevices>(&user, row.as_ref());
            if let Some(before) = before.as_ref().filter(|before| **before != new.device) {
                self.draft_device_ends(&reader, &mut tx, &user, std::slice::from_ref(before)).await?;
            }
            self.draft_dehydrated(&reader, &mut tx, &user, new, before.is_some()).await?;
            let row = DehydratedDevice { device: new.device.clone(), data: new.data.clone() };
            tx.put::<DehydratedDevices>(&user, &Json(row));
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    async fn draft_dehydrated(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
        new: &Dehydrating,
        replaces: bool,
    ) -> Result<(), Error> {
        let key = (user.clone(), new.device.clone());
        let old = reader.get::<Devices>(&key).await?;
        let head = match &old {
            Some(Json(old)) if !old.dehydrated => {
                return Err(Error::invalid("one of your devices has this id already"));
            }
            Some(Json(old)) => Device { name: new.name.clone(), revision: old.revision + 1, ..old.clone() },
            None => {
                let others = self.device_ids(reader, user).await?.len().saturating_sub(usize::from(replaces));
                if others >= self.config().limits.devices {
                    return Err(Error::TooMany("devices"));
                }
                let (name, created) = (new.name.clone(), self.world().now());
                Device { name, created, dehydrated: true, ..Device::default() }
            }
        };
        tx.expect::<Devices>(&key, old.as_ref()).put::<Devices>(&key, &Json(head));
        self.draft_identity(reader, tx, &key, &new.keys).await?;
        self.draft_prekeys(reader, tx, &key, &new.keys).await?;
        Ok(())
    }

    /// The id of the user's dehydrated device and the encrypted device.
    pub async fn dehydrated(&self, user: &UserId) -> Result<Option<(OwnedDeviceId, Box<RawValue>)>, Error> {
        let row = self.store().read().get::<DehydratedDevices>(&user.to_owned()).await?;
        Ok(row.map(|Json(row)| (row.device, row.data)))
    }

    /// Ends the user's dehydrated device; gives its id. [`Error::NotFound`].
    pub async fn delete_dehydrated(&self, user: &UserId) -> Result<OwnedDeviceId, Error> {
        let (device, _) = self.dehydrated(user).await?.ok_or(Error::NotFound("dehydrated device"))?;
        self.delete_devices(user, std::slice::from_ref(&device)).await?;
        Ok(device)
    }

    /// What waits for the user's dehydrated device, a page of `limit` messages or a little more, from the beginning
    /// or from where another answer ended. Nothing is deleted: another device may have to begin anew.
    /// [`Error::Forbidden`] for every other device, [`Error::Invalid`] tokens.
    pub async fn dehydrated_messages(
        &self,
        user: &UserId,
        device: &DeviceId,
        from: Option<&str>,
        limit: Option<usize>,
    ) -> Result<DehydratedMessages, Error> {
        let after = match from {
            Some(token) => {
                read_token(token).ok_or_else(|| Error::invalid("next_batch is no token of ours"))?
            }
            None => Position(0),
        };
        let reader = self.store().read();
        let row = reader.get::<DehydratedDevices>(&user.to_owned()).await?;
        if row.is_none_or(|Json(row)| row.device != device) {
            return Err(Error::Forbidden("this is not your dehydrated device"));
        }
        let now = reader.position();
        let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
        let messages = self.to_device_messages(&reader, user, device, after, now, limit).await?;
        let next = messages.last().map_or(after, |last| last.position);
        let more = messages.len() >= limit
            && !self.to_device_messages(&reader, user, device, next, now, 1).await?.is_empty();
        Ok(DehydratedMessages { messages, more, next: format!("{TOKEN}{next}") })
    }
}

fn read_token(token: &str) -> Option<Position> {
    let number: u64 = token.strip_prefix(TOKEN)?.parse().ok()?;
    (number < u64::MAX).then_some(Position(number))
}

fn check(user: &UserId, new: &Dehydrating) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "algorithm")]
        _algorithm: String,
    }
    #[derive(Deserialize)]
    struct Marked {
        #[serde(default)]
        dehydrated: bool,
    }
    check_new(&new.device, new.name.as_deref())?;
    if new.data.get().len() > DATA_BYTES {
        return Err(Error::TooLarge("device_data"));
    }
    serde_json::from_str::<Data>(new.data.get())
        .map_err(|error| Error::BadJson(format!("device_data: {error}")))?;
    let keys = new.keys.device_keys.as_ref();
    let keys = keys.ok_or_else(|| Error::BadJson("device_keys missing".to_owned()))?;
    check_upload(user, &new.device, &new.keys)?;
    // Whoever encrypts for the device tells it by this from one that somebody uses; the device has signed it.
    if !keys.deserialize_as_unchecked::<Marked>().is_ok_and(|keys| keys.dehydrated) {
        return Err(Error::invalid("device_keys: the keys of a dehydrated device say that it is one"));
    }
    if new.keys.fallback_keys.is_empty() {
        return Err(Error::invalid("a dehydrated device has a fallback key"));
    }
    Ok(())
}
