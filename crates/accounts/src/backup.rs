//! Server-side key backup (`/room_keys`).

use std::collections::BTreeMap;

use chappe_store::{
    Direction, Json, Reader, Tx,
    accounts_keys::{Backup, BackupKeys, BackupNumbers, Backups},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UInt, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Accounts, Error, retry::retry};

/// Bytes of one key.
const KEY_BYTES: usize = 32_768;
/// Bytes of the keys of one request.
const REQUEST_BYTES: usize = 3_500_000;
/// Keys looked through at once.
const PAGE: usize = 200;
/// Bytes of the data of an algorithm.
const AUTH_DATA_BYTES: usize = 32_768;

/// A version of a backup.
#[derive(Clone, Debug)]
pub struct BackupInfo {
    /// Its version.
    pub version: String,
    /// Algorithm.
    pub algorithm: String,
    /// Data of the algorithm.
    pub auth_data: Box<RawValue>,
    /// Number of keys.
    pub count: u64,
    /// Changes whenever a key does.
    pub etag: String,
}

/// What a change left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupKeysChange {
    /// Changes whenever a key does.
    pub etag: String,
    /// Number of keys.
    pub count: u64,
}

/// Keys by room and session.
pub type BackupKeysMap = BTreeMap<OwnedRoomId, BTreeMap<String, Box<RawValue>>>;

/// A key of a backup.
#[derive(Clone, Debug)]
pub struct BackupKey {
    /// Its room.
    pub room: OwnedRoomId,
    /// Its session.
    pub session: String,
    /// The key as uploaded.
    pub key: Box<RawValue>,
}

/// What decides which of two keys of a session is kept.
#[derive(Deserialize)]
struct Quality {
    first_message_index: UInt,
    forwarded_count: UInt,
    is_verified: bool,
    #[serde(rename = "session_data")]
    _session_data: serde_json::Map<String, serde_json::Value>,
}

impl Quality {
    fn of(key: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(key).map_err(|error| Error::BadJson(format!("key of a backup: {error}")))
    }

    /// Verified beats unverified, then the earlier index, then fewer forwards.
    fn beats(&self, other: &Self) -> bool {
        let rank = |q: &Self| (!q.is_verified, q.first_message_index, q.forwarded_count);
        rank(self) < rank(other)
    }
}

const NO_BACKUP: Error = Error::NotFound("key backup");

fn number(version: &str) -> Result<u64, Error> {
    // Only the form that was given out: "+1" and "01" are no versions.
    version.parse().ok().filter(|n: &u64| n.to_string() == version).ok_or(NO_BACKUP)
}

impl Accounts {
    /// Makes a new version; gives it.
    pub async fn create_backup(
        &self,
        user: &UserId,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<String, Error> {
        check_auth_data(algorithm, auth_data)?;
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let old = reader.get::<BackupNumbers>(&key).await?;
            let most = self.config().limits.backup_versions;
            if reader.scan::<Backups>(&key, Direction::Forward, most).await?.len() >= most {
                return Err(Error::TooMany("key backups"));
            }
            let version = old.unwrap_or(0) + 1;
            let (algorithm, auth_data) = (algorithm.to_owned(), auth_data.to_owned());
            let row = Backup { algorithm, auth_data, count: 0, etag: 0, bytes: 0 };
            let mut tx = Tx::new();
            tx.expect::<BackupNumbers>(&key, old.as_ref()).put::<BackupNumbers>(&key, &version);
            tx.put::<Backups>(&(key, version), &Json(row));
            drop(reader);
            self.store().commit(tx).await?;
            Ok(version.to_string())
        })
    }

    /// The current version (`None`) or a given one: one read.
    pub async fn backup(&self, user: &UserId, version: Option<&str>) -> Result<Option<BackupInfo>, Error> {
        let reader = self.store().read();
        let found = match version {
            None => current(&reader, user).await?,
            Some(version) => {
                let Ok(number) = number(version) else { return Ok(None) };
                let row = reader.get::<Backups>(&(user.to_owned(), number)).await?;
                row.map(|Json(row)| (number, row))
            }
        };
        Ok(found.map(|(number, row)| BackupInfo {
            version: number.to_string(),
            algorithm: row.algorithm,
            auth_data: row.auth_data,
            count: row.count,
            etag: row.etag.to_string(),
        }))
    }

    /// Replaces the data of a version; the algorithm must be the same.
    pub async fn update_backup(
        &self,
        user: &UserId,
        version: &str,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<(), Error> {
        check_auth_data(algorithm, auth_data)?;
        let key = (user.to_owned(), number(version)?);
        retry!({
            let Json(old) = self.store().read().get::<Backups>(&key).await?.ok_or(NO_BACKUP)?;
            if old.algorithm != algorithm {
                return Err(Error::invalid("the algorithm of a backup cannot be changed"));
            }
            let new = Backup { auth_data: auth_data.to_owned(), ..old.clone() };
            let mut tx = Tx::new();
            tx.expect::<Backups>(&key, Some(&Json(old))).put::<Backups>(&key, &Json(new));
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Removes a version and its keys; one that was removed before is fine. [`Error::NotFound`] if there never was one.
    pub async fn delete_backup(&self, user: &UserId, version: &str) -> Result<(), Error> {
        let key = (user.to_owned(), number(version)?);
        retry!({
            let reader = self.store().read();
            let Some(row) = reader.get::<Backups>(&key).await? else {
                let last = reader.get::<BackupNumbers>(&key.0).await?.unwrap_or(0);
                return if (1..=last).contains(&key.1) { Ok(()) } else { Err(NO_BACKUP) };
            };
            drop(reader);
            let mut tx = Tx::new();
            tx.expect::<Backups>(&key, Some(&row)).delete::<Backups>(&key).delete_prefix::<BackupKeys>(&key);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Adds keys to the current version; of two keys for one session the better one stays (client-server API,
    /// "Key backup: replacing keys"). [`Error::WrongBackupVersion`], [`Error::NotFound`].
    pub async fn put_backup_keys(
        &self,
        user: &UserId,
        version: &str,
        keys: BackupKeysMap,
    ) -> Result<BackupKeysChange, Error> {
        let version = number(version)?;
        let mut new = Vec::new();
        for (room, sessions) in keys {
            for (session, key) in sessions {
                let quality = Quality::of(key.get().as_bytes())?;
                new.push((room.clone(), session, key, quality));
            }
        }
        if new.iter().any(|(_, session, key, _)| key.get().len() > KEY_BYTES || session.len() > 255) {
            return Err(Error::TooLarge("key of a backup"));
        }
        if new
            .iter()
            .map(|(room, session, key, _)| room.as_str().len() + session.len() + key.get().len())
            .sum::<usize>()
            > REQUEST_BYTES
        {
            return Err(Error::TooLarge("request"));
        }
        retry!({
            let old = self.counted(user, version).await?;
            let reader = self.store().read();
            let rows: Vec<_> = new
                .iter()
                .map(|(room, session, ..)| (user.to_owned(), version, room.clone(), session.clone()))
                .collect();
            let stored = reader.get_many::<BackupKeys>(&rows).await?;
            let mut head = old.clone();
            let mut tx = Tx::new();
            for ((row, (_, _, key, quality)), stored) in rows.iter().zip(&new).zip(stored) {
                match &stored {
                    Some(stored) if !quality.beats(&Quality::of(stored)?) => continue,
                    Some(stored) => head.bytes = head.bytes.saturating_sub(stored.len() as u64),
                    None => head.count += 1,
                }
                head.bytes += key.get().len() as u64;
                tx.put::<BackupKeys>(row, &key.get().as_bytes().to_vec());
            }
            if head.count > self.config().limits.backup_keys {
                return Err(Error::TooMany("keys in the backup"));
            }
            if head.bytes > self.config().limits.backup_bytes && head.bytes > old.bytes {
                return Err(Error::TooLarge("backup"));
            }
            if !tx.is_empty() {
                head.etag += 1;
                let key = (user.to_owned(), version);
                tx.expect::<Backups>(&key, Some(&Json(old))).put::<Backups>(&key, &Json(head.clone()));
                drop(reader);
                self.store().commit(tx).await?;
            }
            Ok(BackupKeysChange { etag: head.etag.to_string(), count: head.count })
        })
    }

    /// Keys of a version, or of one room of it, in their order: at most `limit`, the next page begins `behind` the last of
    /// this one. [`Error::NotFound`] without the version; a missing room is empty.
    pub async fn backup_keys(
        &self,
        user: &UserId,
        version: &str,
        room: Option<&RoomId>,
        behind: Option<&BackupKey>,
        limit: usize,
    ) -> Result<Vec<BackupKey>, Error> {
        let reader = self.store().read();
        let backup = existing(&reader, user, version).await?;
        let behind = behind.map(|last| (last.room.clone(), last.session.clone()));
        let rows = page(&reader, &backup, room, behind, limit).await?;
        let key = |((_, _, room, session), key)| Ok(BackupKey { room, session, key: readable(key)? });
        rows.into_iter().map(key).collect()
    }

    /// One key of a version. [`Error::NotFound`] without the version.
    pub async fn backup_key(
        &self,
        user: &UserId,
        version: &str,
        room: &RoomId,
        session: &str,
    ) -> Result<Option<Box<RawValue>>, Error> {
        let reader = self.store().read();
        let (user, version) = existing(&reader, user, version).await?;
        let row = (user, version, room.to_owned(), session.to_owned());
        reader.get::<BackupKeys>(&row).await?.map(readable).transpose()
    }

    /// Removes those keys. [`Error::WrongBackupVersion`] unless it is the current version.
    pub async fn delete_backup_keys(
        &self,
        user: &UserId,
        version: &str,
        room: Option<&RoomId>,
        session: Option<&str>,
    ) -> Result<BackupKeysChange, Error> {
        let version = number(version)?;
        retry!({
            let old = self.counted(user, version).await?;
            let reader = self.store().read();
            let mut tx = Tx::new();
            let key = (user.to_owned(), version);
            let (count, bytes) = match (room, session) {
                (Some(room), Some(session)) => {
                    let row = (user.to_owned(), version, room.to_owned(), session.to_owned());
                    tx.delete::<BackupKeys>(&row);
                    reader.get::<BackupKeys>(&row).await?.map_or((0, 0), |key| (1, key.len() as u64))
                }
                (Some(room), None) => {
                    tx.delete_prefix::<BackupKeys>(&(user.to_owned(), version, room.to_owned()));
                    sum(&reader, &key, Some(room)).await?
                }
                (None, _) => {
                    tx.delete_prefix::<BackupKeys>(&key);
                    (old.count, old.bytes)
                }
            };
            let mut head = old.clone();
            if count > 0 {
                head.count = head.count.saturating_sub(count);
                head.bytes = head.bytes.saturating_sub(bytes);
                head.etag += 1;
                tx.expect::<Backups>(&key, Some(&Json(old))).put::<Backups>(&key, &Json(head.clone()));
                drop(reader);
                self.store().commit(tx).await?;
            }
            Ok(BackupKeysChange { etag: head.etag.to_string(), count: head.count })
        })
    }

    /// A version, if it takes keys; the bytes of one written before they were counted are counted now.
    /// [`Error::WrongBackupVersion`], [`Error::NotFound`].
    async fn counted(&self, user: &UserId, version: u64) -> Result<Backup, Error> {
        let reader = self.store().read();
        let (latest, old) = current(&reader, user).await?.ok_or(NO_BACKUP)?;
        if latest != version {
            return Err(Error::WrongBackupVersion { current: latest.to_string() });
        }
        if old.bytes > 0 || old.count == 0 {
            return Ok(old);
        }
        let key = (user.to_owned(), version);
        let (_, bytes) = sum(&reader, &key, None).await?;
        drop(reader);
        let new = Backup { bytes, ..old.clone() };
        let mut tx = Tx::new();
        tx.expect::<Backups>(&key, Some(&Json(old))).put::<Backups>(&key, &Json(new.clone()));
        self.store().commit(tx).await?;
        Ok(new)
    }
}

/// The newest version: the one that takes keys.
async fn current(reader: &Reader<'_>, user: &UserId) -> Result<Option<(u64, Backup)>, Error> {
    let found = reader.scan::<Backups>(&user.to_owned(), Direction::Backward, 1).await?;
    Ok(found.into_iter().next().map(|((_, number), Json(row))| (number, row)))
}

type Row = ((OwnedUserId, u64, OwnedRoomId, String), Vec<u8>);

/// A version by its key, if it is there.
async fn existing(reader: &Reader<'_>, user: &UserId, version: &str) -> Result<(OwnedUserId, u64), Error> {
    let key = (user.to_owned(), number(version)?);
    reader.get::<Backups>(&key).await?.map(|_| key).ok_or(NO_BACKUP)
}

/// Rows of a version, or of one room of it, behind a room and session.
async fn page(
    reader: &Reader<'_>,
    backup: &(OwnedUserId, u64),
    room: Option<&RoomId>,
    behind: Option<(OwnedRoomId, String)>,
    limit: usize,
) -> Result<Vec<Row>, Error> {
    let (user, version) = backup.clone();
    Ok(match (room, behind) {
        (None, None) => reader.scan::<BackupKeys>(backup, Direction::Forward, limit).await?,
        (Some(room), None) => {
            let prefix = (user, version, room.to_owned());
            reader.scan::<BackupKeys>(&prefix, Direction::Forward, limit).await?
        }
        (room, Some((last, session))) => {
            let from = (user.clone(), version, last, format!("{session}\0"));
            match room {
                Some(room) => {
                    reader.scan_from::<BackupKeys>(&(user, version, room.to_owned()), &from, limit).await?
                }
                None => reader.scan_from::<BackupKeys>(backup, &from, limit).await?,
            }
        }
    })
}

/// Number and bytes of the keys of a version, or of one room of it.
async fn sum(
    reader: &Reader<'_>,
    backup: &(OwnedUserId, u64),
    room: Option<&RoomId>,
) -> Result<(u64, u64), Error> {
    let (mut count, mut bytes, mut behind) = (0, 0, None);
    loop {
        let rows = page(reader, backup, room, behind, PAGE).await?;
        count += rows.len() as u64;
        bytes += rows.iter().map(|(_, key)| key.len() as u64).sum::<u64>();
        match rows.into_iter().next_back() {
            Some(((_, _, room, session), _)) => behind = Some((room, session)),
            None => return Ok((count, bytes)),
        }
    }
}

fn readable(key: Vec<u8>) -> Result<Box<RawValue>, Error> {
    let text = String::from_utf8(key).map_err(|_| chappe_store::Error::Corrupt("key of a backup"))?;
    Ok(RawValue::from_string(text).map_err(|_| chappe_store::Error::Corrupt("key of a backup"))?)
}

fn check_auth_data(algorithm: &str, auth_data: &RawValue) -> Result<(), Error> {
    if algorithm.is_empty() || algorithm.len() > 255 {
        return Err(Error::invalid("algorithm"));
    }
    if !auth_data.get().trim_start().starts_with('{') {
        return Err(Error::BadJson("auth_data is an object".to_owned()));
    }
    if auth_data.get().len() > AUTH_DATA_BYTES { Err(Error::TooLarge("auth_data")) } else { Ok(()) }
}
