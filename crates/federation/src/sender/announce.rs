//! Telling other servers that a local user's devices or keys changed.

use std::collections::{BTreeMap, BTreeSet};

use chappe_store::{
    Error, Json, Membership, OutboxItem, Reader, RoomNid, Tx,
    outbox::{Announced, AnnouncedDevices},
};
use ruma::{OwnedDeviceId, OwnedServerName, UserId};

use super::Sender;
use crate::Federation;

/// Writers of the same record that are given way to.
const ATTEMPTS: usize = 20;
/// Stream ids left out after a backup was put back: more than a user is given between two backups.
const LEFT_OUT: u64 = 1 << 20;
/// Users who are introduced anew in one commit.
const USERS_AT_ONCE: usize = 100;
/// Bytes from which on a commit that introduces users anew takes no more: one user may be known to thousands of servers.
const BYTES_AT_ONCE: usize = 2 << 20;

impl Federation {
    /// After a backup was put back, before [`Federation::start`]: what other servers were told of devices since is not known. No
    /// stream id is given out again, and each server that shares a room with a user is told to fetch the user's list.
    pub async fn announce_anew(&self) -> Result<(), Error> {
        self.0.sender.announce_anew().await
    }
}

impl Sender {
    /// Compares a user's devices and keys with what was announced, and queues the differences for every server that
    /// shares a room with the user. Doing it twice does nothing the second time.
    pub(super) async fn announce(&self, user: &UserId) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.try_announce(user).await {
                Err(Error::Conflict) => {}
                done => return done,
            }
        }
        Err(Error::Conflict)
    }

    async fn try_announce(&self, user: &UserId) -> Result<(), Error> {
        let now = self.present(user).await?;
        let store = self.0.network.store();
        let reader = store.read();
        let kept = reader.get::<AnnouncedDevices>(&user.to_owned()).await?;
        let old = kept.clone().map(|Json(old)| old).unwrap_or_default();
        let changed = changed(&old.devices, &now.devices);
        let keys_changed = old.signing_keys != now.signing_keys;
        if changed.is_empty() && !keys_changed {
            return Ok(());
        }
        let servers = self.servers_of(&reader, user).await?;
        let mut tx = Tx::new();
        let mut stream_id = old.stream_id;
        for device in changed {
            stream_id += 1;
            let item = OutboxItem::Device { user: user.to_owned(), device, stream_id };
            for server in &servers {
                tx.enqueue(server, &item);
            }
        }
        if keys_changed {
            for server in &servers {
                tx.enqueue(server, &OutboxItem::SigningKeys(user.to_owned()));
            }
        }
        tx.expect::<AnnouncedDevices>(&user.to_owned(), kept.as_ref());
        tx.put::<AnnouncedDevices>(&user.to_owned(), &Json(Announced { stream_id, ..now }));
        store.commit(tx).await.map(drop)
    }

    /// Tells servers of a user who has come into a room with them. One of the user's devices is enough: who does not
    /// know the stream up to there fetches the whole list, who does sees that nothing is new. No update before it is named:
    /// who missed just the last one would take this for it.
    pub(super) async fn introduce(&self, user: &UserId, servers: &[OwnedServerName]) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.try_introduce(user, servers).await {
                Err(Error::Conflict) => {}
                done => return done,
            }
        }
        Err(Error::Conflict)
    }

    async fn try_introduce(&self, user: &UserId, servers: &[OwnedServerName]) -> Result<(), Error> {
        if servers.is_empty() {
            return Ok(());
        }
        let kept = self.0.network.store().read().get::<AnnouncedDevices>(&user.to_owned()).await?;
        let told = kept.clone().map(|Json(told)| told).unwrap_or_default();
        let of_user = read(self.0.accounts.devices(user).await)?.unwrap_or_default();
        let first = told.devices.keys().next().cloned();
        let Some(device) = first.or_else(|| Some(of_user.into_iter().next()?.device_id)) else {
            return Ok(());
        };
        let stream_id = told.stream_id.max(1);
        let mut tx = Tx::new();
        tx.expect::<AnnouncedDevices>(&user.to_owned(), kept.as_ref());
        if stream_id != told.stream_id {
            tx.put::<AnnouncedDevices>(&user.to_owned(), &Json(Announced { stream_id, ..told }));
        }
        let item = OutboxItem::Introduction { user: user.to_owned(), device, stream_id };
        for server in servers {
            tx.enqueue(server, &item);
        }
        self.0.network.store().commit(tx).await.map(drop)
    }

    async fn announce_anew(&self) -> Result<(), Error> {
        let (network, mut from) = (&self.0.network, String::new());
        loop {
            let reader = network.store().read();
            let rows = reader.scan_from::<AnnouncedDevices>(&(), &from, USERS_AT_ONCE).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = format!("{last}\0");
            let mut tx = Tx::new();
            for (user, Json(told)) in rows {
                let stream_id = told.stream_id.saturating_add(LEFT_OUT);
                // Who has no device now may have had one since.
                let device = told.devices.keys().next().cloned().unwrap_or_else(|| "NONE".into());
                let item = OutboxItem::Introduction { user: user.clone(), device, stream_id };
                for server in self.servers_of(&reader, &user).await? {
                    if tx.size() >= BYTES_AT_ONCE {
                        network.store().commit(std::mem::take(&mut tx)).await?;
                    }
                    tx.enqueue(&server, &item);
                }
                // With the last of them: broken off before, it is done again.
                tx.put::<AnnouncedDevices>(&user, &Json(Announced { stream_id, ..told }));
            }
            drop(reader);
            network.store().commit(tx).await?;
        }
    }

    /// Other servers in the rooms of a local user.
    pub(super) async fn servers_of(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
    ) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut rooms = reader.user_rooms(user).await?;
        rooms.retain(|(_, at)| at.value.membership == Membership::Join);
        let joined: Vec<RoomNid> = rooms.into_iter().map(|(nid, _)| nid).collect();
        let mut servers = self.0.rooms.servers_in(reader, &joined).await?;
        servers.remove(self.0.network.server());
        Ok(servers)
    }

    /// Whether other servers were ever told of the user's devices. If not, none of them has keys.
    pub(super) async fn is_announced(&self, user: &UserId) -> Result<bool, Error> {
        let kept = self.0.network.store().read().get::<AnnouncedDevices>(&user.to_owned()).await?;
        Ok(kept.is_some_and(|Json(told)| told.stream_id > 0))
    }

    /// Fingerprints of what there is now.
    async fn present(&self, user: &UserId) -> Result<Announced, Error> {
        let devices = read(self.0.accounts.federated_devices(user).await)?.unwrap_or_default();
        let keys = read(self.0.accounts.public_keys(None, user, &[]).await)?.unwrap_or_default();
        let print = |(device, keys, name): (OwnedDeviceId, ruma::serde::Raw<_>, Option<String>)| {
            let keys: &ruma::serde::Raw<ruma::encryption::DeviceKeys> = &keys;
            (device, fingerprint([keys.json().get(), name.as_deref().unwrap_or_default()]))
        };
        let all = read(self.0.accounts.devices(user).await)?.unwrap_or_default();
        // A device without keys is there for people alone, under the name it was given.
        let named = all.into_iter().filter_map(|device| {
            let print = fingerprint(["", device.name.as_deref()?]);
            Some((device.device_id, print))
        });
        let own = |key: &Option<ruma::serde::Raw<ruma::encryption::CrossSigningKey>>| {
            key.as_ref().map(|key| key.json().get().to_owned()).unwrap_or_default()
        };
        let (master, self_signing) = (own(&keys.master), own(&keys.self_signing));
        let none = master.is_empty() && self_signing.is_empty();
        Ok(Announced {
            stream_id: 0,
            devices: named.chain(devices.into_iter().map(print)).collect(),
            signing_keys: if none { 0 } else { fingerprint([&master, &self_signing]) },
        })
    }
}

pub(super) fn read<T>(answer: Result<T, chappe_accounts::Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(chappe_accounts::Error::Store(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Devices that are new, other than before, or gone.
fn changed(
    old: &BTreeMap<OwnedDeviceId, u64>,
    new: &BTreeMap<OwnedDeviceId, u64>,
) -> BTreeSet<OwnedDeviceId> {
    let differs = |device: &&OwnedDeviceId| old.get(*device) != new.get(*device);
    old.keys().chain(new.keys()).filter(differs).cloned().collect()
}

/// Tells texts apart; nobody gains by making two alike (FNV-1a, 64 bits).
fn fingerprint(texts: [&str; 2]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_new_other_and_gone_devices() {
        let devices = |list: &[(&str, u64)]| list.iter().map(|(id, print)| ((*id).into(), *print)).collect();
        let (old, new) = (devices(&[("A", 1), ("B", 2), ("C", 3)]), devices(&[("A", 1), ("B", 9), ("D", 4)]));
        let changed: Vec<String> = changed(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(changed, ["B", "C", "D"]);
        assert_ne!(fingerprint(["a", "b"]), fingerprint(["ab", ""]));
    }
}
