//! Devices: listing, naming, ending, and when they were last seen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use chappe_store::{
    AccountNews, Direction, Json, LogEntry, Reader, Tx,
    accounts::{Device, DeviceSeen, Devices, LastActive, OAuthLogIn, Seen},
    accounts_keys::{
        DehydratedDevices, DeviceKeys, FallbackKeys, KeyHeads, KeySignatures, OneTimeKeyOrder, OneTimeKeys,
    },
    oauth::ClientDevices,
};
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    Accounts, Error, Scope, retry::retry, to_device::draft_empty_inbox, tokens::revoke_device_tokens,
    validity::DAY_MS,
};

/// The longest device id that is taken, in bytes.
const LONGEST_ID: usize = 255;
/// Account data about one device: these prefixes and its id.
const LOCAL_SETTINGS: [&str; 2] =
    ["m.local_notification_settings.", "org.matrix.msc3890.local_notification_settings."];
/// The longest device name that is taken, in bytes.
const LONGEST_NAME: usize = 1000;
/// Last-seen rows written in one commit.
const SEEN_AT_ONCE: usize = 1000;

/// A device as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id.
    pub device_id: OwnedDeviceId,
    /// Shown name.
    pub name: Option<String>,
    /// Last seen at, in milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// Last seen from.
    pub last_seen_ip: Option<String>,
    /// Whether nobody is logged in with it: it only keeps messages for the next log-in (MSC3814).
    pub dehydrated: bool,
}

/// A device that is to be there.
pub(crate) struct Arrival<'a> {
    pub(crate) user: &'a UserId,
    pub(crate) device: &'a DeviceId,
    /// Name, if it is new.
    pub(crate) name: Option<&'a str>,
    /// What it logs in with from now on.
    pub(crate) oauth: Option<&'a OAuthLogIn>,
    /// The number of the log-in, if it is one.
    pub(crate) log_in: Option<u64>,
}

/// A user and one of their devices.
type DeviceKey = (OwnedUserId, OwnedDeviceId);

/// Sightings not written yet.
#[derive(Default)]
pub(crate) struct SeenBuffer(Mutex<HashMap<DeviceKey, Seen>>);

impl SeenBuffer {
    /// When devices of each user were last seen, as far as it is not written yet.
    pub(crate) fn by_user(&self) -> HashMap<OwnedUserId, u64> {
        let mut latest = HashMap::new();
        for ((user, _), seen) in self.0.lock().iter() {
            let at: &mut u64 = latest.entry(user.clone()).or_default();
            *at = (*at).max(seen.at);
        }
        latest
    }
}

impl Accounts {
    /// All devices of a user, by id.
    pub async fn devices(&self, user: &UserId) -> Result<Vec<DeviceInfo>, Error> {
        let reader = self.store().read();
        let rows = reader.scan::<Devices>(&user.to_owned(), Direction::Forward, usize::MAX).await?;
        let seen = reader.scan::<DeviceSeen>(&user.to_owned(), Direction::Forward, usize::MAX).await?;
        let seen: HashMap<_, _> = seen.into_iter().map(|((_, device), Json(seen))| (device, seen)).collect();
        let info = |((_, id), Json(device)): ((_, OwnedDeviceId), _)| {
            let seen = seen.get(&id).cloned();
            self.device_info(user, id, device, seen)
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// One device.
    pub async fn device(&self, user: &UserId, device: &DeviceId) -> Result<Option<DeviceInfo>, Error> {
        let reader = self.store().read();
        let key = (user.to_owned(), device.to_owned());
        let Some(Json(found)) = reader.get::<Devices>(&key).await? else { return Ok(None) };
        let seen = reader.get::<DeviceSeen>(&key).await?.map(|Json(seen)| seen);
        Ok(Some(self.device_info(user, key.1, found, seen)))
    }

    fn device_info(
        &self,
        user: &UserId,
        id: OwnedDeviceId,
        device: Device,
        seen: Option<Seen>,
    ) -> DeviceInfo {
        let key = (user.to_owned(), id);
        let seen = self.inner.seen.0.lock().get(&key).cloned().or(seen);
        let (at, ip) = seen.map_or((None, None), |seen| (Some(seen.at), seen.ip));
        DeviceInfo {
            device_id: key.1,
            name: device.name,
            last_seen_ms: at,
            last_seen_ip: ip,
            dehydrated: device.dehydrated,
        }
    }

    /// Makes a device without tokens, if it is not there: for application services.
    pub async fn ensure_device(
        &self,
        user: &UserId,
        device: &DeviceId,
        name: Option<&str>,
    ) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            let there = reader.get::<Devices>(&(user.to_owned(), device.to_owned())).await?;
            if there.is_some_and(|Json(there)| !there.dehydrated) {
                return Ok(());
            }
            let arrival = Arrival { user, device, name, oauth: None, log_in: None };
            self.draft_device(&reader, &mut tx, &arrival).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Names a device; `None` unnames it. [`Error::NotFound`].
    pub async fn rename_device(
        &self,
        user: &UserId,
        device: &DeviceId,
        name: Option<&str>,
    ) -> Result<(), Error> {
        check_name(name)?;
        retry!({
            let reader = self.store().read();
            let key = (user.to_owned(), device.to_owned());
            let Json(old) = reader.get::<Devices>(&key).await?.ok_or(Error::NotFound("device"))?;
            if old.name.as_deref() == name {
                return Ok(());
            }
            let new = Device { name: name.map(str::to_owned), revision: old.revision + 1, ..old.clone() };
            let mut tx = Tx::new();
            tx.expect::<Devices>(&key, Some(&Json(old))).put::<Devices>(&key, &Json(new));
            self.draft_list_change(&reader, &mut tx, user).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Ends devices: their tokens, keys, messages, pushers. Unknown ones are passed over.
    pub async fn delete_devices(&self, user: &UserId, devices: &[OwnedDeviceId]) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            self.draft_device_ends(&reader, &mut tx, user, devices).await?;
            drop(reader);
            if !tx.is_empty() {
                self.commit_of(user, tx).await?;
            }
            Ok(())
        })
    }

    /// Notes that a device was seen; kept in memory until [`Accounts::flush_seen`].
    pub fn saw(&self, user: &UserId, device: &DeviceId, ip: Option<IpAddr>) {
        let seen = Seen { at: self.world().now(), ip: ip.map(|ip| ip.to_string()) };
        self.inner.seen.0.lock().insert((user.to_owned(), device.to_owned()), seen);
    }

    /// Writes what [`Accounts::saw`] noted; meant to be called every minute and at shutdown.
    pub async fn flush_seen(&self) -> Result<(), Error> {
        let noted = std::mem::take(&mut *self.inner.seen.0.lock());
        let noted: Vec<_> = noted.into_iter().collect();
        for chunk in noted.chunks(SEEN_AT_ONCE) {
            retry!({
                let mut tx = Tx::new();
                self.draft_seen(&mut tx, chunk).await?;
                if !tx.is_empty() {
                    self.store().commit(tx).await?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What sightings write. The log hears of the first one of a user on each day.
    async fn draft_seen(&self, tx: &mut Tx, sightings: &[(DeviceKey, Seen)]) -> Result<(), Error> {
        let keys: Vec<_> = sightings.iter().map(|(key, _)| key.clone()).collect();
        let mut days: BTreeMap<OwnedUserId, u64> = BTreeMap::new();
        for ((user, _), seen) in sightings {
            let day = days.entry(user.clone()).or_default();
            *day = (*day).max(seen.at);
        }
        let users: Vec<_> = days.keys().cloned().collect();
        let reader = self.store().read();
        let (devices, known) = reader.get_both::<Devices, LastActive>(&keys, &users).await?;
        let mut here = BTreeSet::new();
        for ((key, seen), device) in sightings.iter().zip(devices) {
            if device.is_some() {
                tx.put::<DeviceSeen>(key, &Json(seen.clone()));
                here.insert(&key.0);
            }
        }
        if self.config().forgets_days {
            return Ok(());
        }
        for ((user, at), known) in days.into_iter().zip(known) {
            let day = at / DAY_MS;
            // What is written of a day far ahead was, by a clock that was wrong.
            let is_counted = known.is_some_and(|known| (day..=day + 1).contains(&known));
            if here.contains(&user) && !is_counted {
                tx.expect::<LastActive>(&user, known.as_ref()).put::<LastActive>(&user, &day);
                tx.log(LogEntry::Account { user, at, what: AccountNews::Active });
            }
        }
        Ok(())
    }

    /// The ids of all devices of a user.
    pub(crate) async fn device_ids(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
    ) -> Result<Vec<OwnedDeviceId>, Error> {
        let rows = reader.scan::<Devices>(&user.to_owned(), Direction::Forward, usize::MAX).await?;
        Ok(rows.into_iter().map(|((_, device), _)| device).collect())
    }

    /// Makes a device if it is not there, and replaces its head either way. [`Error::Forbidden`] for the dehydrated
    /// device: nobody acts as it.
    pub(crate) async fn draft_device(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        arrival: &Arrival<'_>,
    ) -> Result<(), Error> {
        let Arrival { user, device, name, oauth, log_in } = *arrival;
        check_new(device, name)?;
        let key = (user.to_owned(), device.to_owned());
        let old = reader.get::<Devices>(&key).await?;
        tx.expect::<Devices>(&key, old.as_ref());
        let new = if let Some(Json(old)) = old {
            if old.dehydrated {
                return Err(Error::Forbidden("nobody can use this device"));
            }
            if let Some(before) = &old.oauth {
                tx.delete::<ClientDevices>(&(before.client, key.0.clone(), key.1.clone()));
            }
            Device { revision: old.revision + 1, oauth: oauth.cloned(), log_in, ..old }
        } else {
            if self.device_ids(reader, user).await?.len() >= self.config().limits.devices {
                return Err(Error::TooMany("devices"));
            }
            // A message that was on its way while an older device of this id ended.
            draft_empty_inbox(tx, &key);
            let (name, created) = (name.map(str::to_owned), self.world().now());
            Device { name, created, oauth: oauth.cloned(), log_in, ..Device::default() }
        };
        if let Some(oauth) = oauth {
            tx.put::<ClientDevices>(&(oauth.client, key.0.clone(), key.1.clone()), &());
        }
        tx.put::<Devices>(&key, &Json(new));
        Ok(())
    }

    /// Ends devices.
    pub(crate) async fn draft_device_ends(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
        devices: &[OwnedDeviceId],
    ) -> Result<(), Error> {
        let mut had_keys = false;
        let mut ended = Vec::new();
        for device in devices {
            let key = (user.to_owned(), device.clone());
            let Some(head) = reader.get::<Devices>(&key).await? else { continue };
            if head.0.dehydrated {
                let row = reader.get::<DehydratedDevices>(&key.0).await?;
                tx.expect::<DehydratedDevices>(&key.0, row.as_ref()).delete::<DehydratedDevices>(&key.0);
            }
            had_keys |= reader.get::<DeviceKeys>(&key).await?.is_some();
            tx.expect::<Devices>(&key, Some(&head)).delete::<Devices>(&key).delete::<DeviceSeen>(&key);
            if let Some(oauth) = &head.0.oauth {
                tx.delete::<ClientDevices>(&(oauth.client, key.0.clone(), key.1.clone()));
            }
            revoke_device_tokens(reader, tx, user, device).await?;
            tx.delete::<DeviceKeys>(&key).delete::<KeyHeads>(&key);
            tx.delete_prefix::<OneTimeKeys>(&key).delete_prefix::<OneTimeKeyOrder>(&key);
            tx.delete_prefix::<FallbackKeys>(&key);
            // What is known of its keys is void, and its syncs wait no longer. `GET /events` is refused once it would answer.
            tx.log(LogEntry::OneTimeKeys { user: key.0.clone(), device: key.1.clone() });
            tx.delete_prefix::<KeySignatures>(&(user.to_owned(), user.to_owned(), device.to_string()));
            draft_empty_inbox(tx, &key);
            self.draft_settings_end(reader, tx, user, device).await?;
            ended.push(device.clone());
        }
        if !ended.is_empty() {
            // Already before the commit, as that wakes requests that wait: each is looked at anew.
            self.inner.cache.forget(user);
            let of_ended =
                |device: Option<&OwnedDeviceId>| device.is_some_and(|device| ended.contains(device));
            self.draft_pusher_ends(reader, tx, user, of_ended).await?;
        }
        if had_keys {
            self.draft_list_change(reader, tx, user).await?;
        }
        Ok(())
    }

    /// Deletes what the user has set for one device alone (MSC3890).
    async fn draft_settings_end(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<(), Error> {
        for prefix in LOCAL_SETTINGS {
            let kind = format!("{prefix}{device}");
            if kind.len() <= LONGEST_ID {
                self.draft_account_data_end(reader, tx, user, Scope::Global, &kind).await?;
            }
        }
        Ok(())
    }
}

/// Whether a device may be made under this id and name.
pub(crate) fn check_new(device: &DeviceId, name: Option<&str>) -> Result<(), Error> {
    let id = device.as_str();
    if id.is_empty() || id.len() > LONGEST_ID || id.chars().any(char::is_control) {
        return Err(Error::invalid("device ids have 1 to 255 bytes and no control characters"));
    }
    check_name(name)
}

fn check_name(name: Option<&str>) -> Result<(), Error> {
    if name.is_some_and(|name| name.len() > LONGEST_NAME) {
        Err(Error::TooLarge("device name"))
    } else {
        Ok(())
    }
}
