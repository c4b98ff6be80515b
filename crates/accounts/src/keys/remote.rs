//! What is known of remote users' devices: what the federation fetched, what it was told, what it has to fetch again.

use std::collections::BTreeMap;

use chappe_store::{
    Direction, Json, Reader, Tx, Value,
    accounts_keys::{
        CrossSigningKeys, KeySignatures, RemoteDevice, RemoteDevices, RemoteList, RemoteLists, Resyncs,
    },
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId, encryption::CrossSigningKey, serde::Raw};
use serde_json::value::RawValue;

use super::{RemoteDeviceUpdate, RemoteUpdate, Usage, form, query::read_object};
use crate::{Accounts, Error, retry::retry};

/// Devices of one remote user that are kept.
const MOST_DEVICES: usize = 1_000;
/// Updates of one remote user's devices that are remembered.
const MOST_HEARD: usize = 20;
/// Bytes of a device's name that are kept, and of its id.
const NAME_BYTES: usize = 1_000;
const ID_BYTES: usize = 255;
/// Users of whom something is noted in one commit.
const USERS_AT_ONCE: usize = 500;

impl Accounts {
    /// What is known of a remote user's devices: stream id and whether the list must be fetched; `None`: nothing.
    pub async fn remote_list(&self, user: &UserId) -> Result<Option<RemoteList>, Error> {
        Ok(self.store().read().get::<RemoteLists>(&user.to_owned()).await?.map(|Json(list)| list))
    }

    /// Takes in what the federation fetched or was told of a user of another server. Keys are checked; bad ones are
    /// dropped alone. [`Error::Forbidden`] for users of this server.
    pub async fn update_remote(&self, user: &UserId, update: RemoteUpdate) -> Result<(), Error> {
        self.update_remote_while(user, update, || true).await.map(drop)
    }

    /// The same as long as the update `holds`, which is asked before each attempt to write it: says whether it was taken.
    /// What is noted of the user before `holds` says otherwise stays as it is.
    pub async fn update_remote_while(
        &self,
        user: &UserId,
        update: RemoteUpdate,
        holds: impl Fn() -> bool + Send + Sync,
    ) -> Result<bool, Error> {
        if self.is_local(user) {
            return Err(Error::Forbidden("not a user of another server"));
        }
        let _turn = self.turn(user).await;
        retry!({
            let reader = self.store().read();
            // After the moment that is read: what comes later and says otherwise is a conflict.
            if !holds() {
                return Ok(false);
            }
            let key = user.to_owned();
            let old = reader.get::<RemoteLists>(&key).await?;
            let mut list = old.clone().map(|Json(list)| list).unwrap_or_default();
            // What was given out beside the list is not known any more: it may differ from this one.
            let mut changed = update.complete && std::mem::take(&mut list.given);
            if let Some(stream_id) = update.stream_id {
                list.stream_id = stream_id;
                if update.complete {
                    // A server that went back to a backup counts some of them again.
                    list.heard.retain(|heard| *heard <= stream_id);
                } else {
                    hear(&mut list, stream_id);
                }
            }
            let mut tx = Tx::new();
            let before = known(&reader, user, &update).await?;
            let mut after = if update.complete { Known::default() } else { before.clone() };
            if update.complete {
                list.stale = false;
                list.fetched = self.world().now();
                tx.delete_prefix::<RemoteDevices>(&key).delete::<Resyncs>(&key);
            }
            tx.expect::<RemoteLists>(&key, old.as_ref()).put::<RemoteLists>(&key, &Json(list));
            let room = room_for_devices(&reader, user, &before, &update).await?;
            draft_devices(&mut tx, &mut after, &update, (&key, room));
            changed |= before != after;
            for (usage, new) in [(Usage::Master, &update.master), (Usage::SelfSigning, &update.self_signing)]
            {
                let row = (key.clone(), usage as u8);
                let before = reader.get::<CrossSigningKeys>(&row).await?;
                if let Some(new) = new {
                    changed |= before.as_deref() != Some(new.json().get().as_bytes());
                    draft_cross_signing(&mut tx, &key, usage, new, before)?;
                } else if let Some(before) = before.filter(|_| update.complete) {
                    // A whole list comes with the keys that there are.
                    if let Some(public) = form::public_key(&read_object(&before)?) {
                        tx.delete_prefix::<KeySignatures>(&(key.clone(), key.clone(), public));
                    }
                    tx.delete::<CrossSigningKeys>(&row);
                    changed = true;
                }
            }
            // Clients that hear of a change ask again: only what is new to them is told.
            if changed {
                self.draft_list_change(&reader, &mut tx, user).await?;
            }
            drop(reader);
            self.store().commit(tx).await?;
            Ok(true)
        })
    }

    /// Marks a remote user's device list as to be fetched again, and tells those who share a room.
    pub async fn mark_stale(&self, user: &UserId) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let old = reader.get::<RemoteLists>(&key).await?;
            let old_list = old.clone().map(|Json(list)| list).unwrap_or_default();
            let list = RemoteList { stale: true, given: false, ..old_list };
            let mut tx = Tx::new();
            tx.expect::<RemoteLists>(&key, old.as_ref()).put::<RemoteLists>(&key, &Json(list));
            tx.put::<Resyncs>(&key, &());
            self.draft_list_change(&reader, &mut tx, user).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Remembers an update of a remote user's devices that cannot be taken in, and marks the list as to be fetched again.
    /// Those who share a room are told, unless they were already and were given no keys since.
    pub async fn miss_update(&self, user: &UserId, stream_id: u64) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let old = reader.get::<RemoteLists>(&key).await?;
            let mut list = old.clone().map(|Json(list)| list).unwrap_or_default();
            let given = std::mem::take(&mut list.given);
            let told = list.stale && !given && reader.get::<Resyncs>(&key).await?.is_some();
            list.stale = true;
            hear(&mut list, stream_id);
            let mut tx = Tx::new();
            tx.expect::<RemoteLists>(&key, old.as_ref()).put::<RemoteLists>(&key, &Json(list));
            if !told {
                tx.put::<Resyncs>(&key, &());
                self.draft_list_change(&reader, &mut tx, user).await?;
            }
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Remote users whose list must be fetched again, from `after` (excluded).
    pub async fn stale_lists(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<OwnedUserId>, Error> {
        let from = after.map(crate::users::beyond).unwrap_or_default();
        let rows = self.store().read().scan_from::<Resyncs>(&(), &from, limit).await?;
        Ok(rows.into_iter().map(|(user, ())| user).collect())
    }

    /// No longer believes what is kept of remote users' devices, as changes may not be heard of: the next who asks has it
    /// fetched again, and only if it differs then are those told who share a room. One commit; users of whom nothing is kept
    /// are left alone.
    pub async fn doubt_known(&self, users: &[OwnedUserId]) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let lists = reader.get_many::<RemoteLists>(users).await?;
            let mut tx = Tx::new();
            for (user, old) in users.iter().zip(lists) {
                let Some(old) = old.filter(|Json(old)| !old.stale) else { continue };
                let list = RemoteList { stale: true, ..old.0.clone() };
                tx.expect::<RemoteLists>(user, Some(&old)).put::<RemoteLists>(user, &Json(list));
            }
            drop(reader);
            if !tx.is_empty() {
                self.store().commit(tx).await?;
            }
            Ok(())
        })
    }

    /// Believes no list that is kept of remote users' devices before it is fetched again: a backup was put back, and what was
    /// heard since is forgotten. Nor is it known what clients were told and given since: the lists are fetched without anybody
    /// asking, and all who share a room are told then. Meant for a server that serves nobody yet.
    pub async fn doubt_all(&self) -> Result<(), Error> {
        let mut from = String::new();
        loop {
            let rows = self.store().read().scan_from::<RemoteLists>(&(), &from, USERS_AT_ONCE).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = crate::users::beyond(last);
            let mut tx = Tx::new();
            for (user, Json(list)) in rows {
                tx.put::<RemoteLists>(&user, &Json(RemoteList { stale: true, given: true, ..list }));
                tx.put::<Resyncs>(&user, &());
            }
            self.store().commit(tx).await?;
        }
    }

    /// Whether what is told of a remote user's device is what is kept of it; `None`: it is gone. Some servers tell names on one
    /// way only: one that is left out says nothing.
    pub async fn holds_device(
        &self,
        user: &UserId,
        device: &DeviceId,
        told: Option<&RemoteDeviceUpdate>,
    ) -> Result<bool, Error> {
        let kept = self.store().read().get::<RemoteDevices>(&(user.to_owned(), device.to_owned())).await?;
        let kept = kept.map(|Json(kept)| kept);
        let Some(told) = told.map(|told| to_keep(user, device, told)) else { return Ok(kept.is_none()) };
        let (keys, name) = kept.map_or((None, None), |kept| (kept.keys, kept.name));
        let is_named_so = told.name.is_none() || told.name == name;
        Ok(is_named_so && content(keys.as_deref()) == content(told.keys.as_deref()))
    }

    /// Somebody is about to be given keys of remote users, as these have them now, beside the lists kept of them: of each the
    /// next news are told, and so is the list once it is fetched. A list of which nothing is kept is to be fetched.
    pub async fn note_given(&self, users: &[OwnedUserId]) -> Result<(), Error> {
        for some in users.chunks(USERS_AT_ONCE) {
            retry!({
                let reader = self.store().read();
                let lists = reader.get_many::<RemoteLists>(some).await?;
                let mut tx = Tx::new();
                for (user, old) in some.iter().zip(lists) {
                    let unknown = RemoteList { stale: true, ..RemoteList::default() };
                    let list = old.clone().map_or(unknown, |Json(list)| list);
                    if !list.given {
                        let list = RemoteList { given: true, ..list };
                        tx.expect::<RemoteLists>(user, old.as_ref()).put::<RemoteLists>(user, &Json(list));
                    }
                }
                drop(reader);
                if !tx.is_empty() {
                    self.store().commit(tx).await?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The list of a remote user is not fetched again before somebody asks for it.
    pub async fn end_resync(&self, user: &UserId) -> Result<(), Error> {
        let mut tx = Tx::new();
        tx.delete::<Resyncs>(&user.to_owned());
        self.store().commit(tx).await?;
        Ok(())
    }

    /// All devices of a remote user that are known, with or without keys.
    pub async fn remote_device_ids(&self, user: &UserId) -> Result<Vec<OwnedDeviceId>, Error> {
        let rows = self
            .store()
            .read()
            .scan::<RemoteDevices>(&user.to_owned(), Direction::Forward, MOST_DEVICES)
            .await?;
        Ok(rows.into_iter().map(|((_, device), _)| device).collect())
    }
}

/// Remembers an update as the last one heard of.
fn hear(list: &mut RemoteList, stream_id: u64) {
    list.heard.retain(|heard| *heard != stream_id);
    list.heard.push(stream_id);
    let surplus = list.heard.len().saturating_sub(MOST_HEARD);
    list.heard.drain(..surplus);
}

/// What a device's row holds, by device.
type Known = BTreeMap<OwnedDeviceId, Vec<u8>>;

/// What is kept of the devices that an update is about.
async fn known(reader: &Reader<'_>, user: &UserId, update: &RemoteUpdate) -> Result<Known, Error> {
    if update.complete {
        let rows = reader.scan_all::<RemoteDevices>(&user.to_owned()).await?;
        return Ok(rows.into_iter().map(|((_, device), row)| (device, row.to_bytes())).collect());
    }
    let keys: Vec<_> = update.devices.keys().map(|device| (user.to_owned(), device.clone())).collect();
    let rows = keys.iter().zip(reader.get_many::<RemoteDevices>(&keys).await?);
    Ok(rows.filter_map(|((_, device), row)| Some((device.clone(), row?.to_bytes()))).collect())
}

/// How many devices of a remote user may be added.
async fn room_for_devices(
    reader: &Reader<'_>,
    user: &UserId,
    known: &Known,
    update: &RemoteUpdate,
) -> Result<usize, Error> {
    let adds = update.devices.iter().any(|(device, found)| found.is_some() && !known.contains_key(device));
    if update.complete || !adds {
        return Ok(MOST_DEVICES);
    }
    let rows = reader.scan::<RemoteDevices>(&user.to_owned(), Direction::Forward, MOST_DEVICES).await?;
    Ok(MOST_DEVICES - rows.len())
}

fn draft_devices(
    tx: &mut Tx,
    after: &mut Known,
    update: &RemoteUpdate,
    (user, mut room): (&OwnedUserId, usize),
) {
    for (device, found) in &update.devices {
        let key = (user.clone(), device.clone());
        let Some(found) = found else {
            tx.delete::<RemoteDevices>(&key);
            after.remove(device);
            continue;
        };
        if !after.contains_key(device) {
            if room == 0 || device.as_bytes().len() > ID_BYTES {
                tracing::debug!(%user, "a device of a remote user is one too many, or its id too long");
                continue;
            }
            room -= 1;
        }
        let row = Json(to_keep(user, device, found));
        after.insert(device.clone(), row.to_bytes());
        tx.put::<RemoteDevices>(&key, &row);
    }
}

/// What is kept of what is told of a device: bad keys and long names are dropped.
fn to_keep(user: &UserId, device: &DeviceId, (keys, name): &RemoteDeviceUpdate) -> RemoteDevice {
    let keys = keys.as_ref().map(Raw::json).filter(|json| {
        let checked = form::check_device_keys(json.get(), user, device);
        if let Err(error) = &checked {
            tracing::debug!(%user, %device, %error, "dropping a remote device's keys");
        }
        checked.is_ok()
    });
    let name = name.clone().filter(|name| name.len() <= NAME_BYTES);
    RemoteDevice { keys: keys.map(ToOwned::to_owned), name }
}

/// What keys say, however they are written.
fn content(keys: Option<&RawValue>) -> Option<serde_json::Value> {
    let mut keys: serde_json::Value = serde_json::from_str(keys?.get()).ok()?;
    // What nobody signed is no part of them.
    if let Some(keys) = keys.as_object_mut() {
        keys.remove("unsigned");
    }
    Some(keys)
}

fn draft_cross_signing(
    tx: &mut Tx,
    user: &OwnedUserId,
    usage: Usage,
    new: &Raw<CrossSigningKey>,
    before: Option<Vec<u8>>,
) -> Result<(), Error> {
    let json = new.json().get();
    let (_, public) = match form::check_cross_signing(json, user, usage) {
        Ok(checked) => checked,
        Err(error) => {
            tracing::debug!(%user, %error, "dropping a remote user's cross-signing key");
            return Ok(());
        }
    };
    if let Some(before) = before {
        let before = form::public_key(&read_object(&before)?);
        if let Some(before) = before.filter(|before| *before != public) {
            tx.delete_prefix::<KeySignatures>(&(user.clone(), user.clone(), before));
        }
    }
    tx.put::<CrossSigningKeys>(&(user.clone(), usage as u8), &json.as_bytes().to_vec());
    Ok(())
}
