//! What administrators ask of media: lists, what each user takes up, deleting.

use std::collections::{BTreeMap, HashSet};

use chappe_store::{
    Direction, Json, Reader, Tx,
    media::{
        Media as Table, MediaAccess, MediaByHash, Medium, PendingMedia, Quarantines, Thumbnails, UserBytes,
        UserMedia,
    },
};
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};

use crate::{Error, Media, quarantine::again};

/// Rows looked at in one round trip.
const PAGE: usize = 500;
/// How exactly it is known when a medium was last given out, in milliseconds: media are asked for often.
const ACCESS_MS: u64 = 60 * 60 * 1_000;
/// Media whose last use is kept in memory at most, until it is written.
const NOTED: usize = 50_000;

/// A medium in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediumInfo {
    /// Its server.
    pub server: OwnedServerName,
    /// Its id.
    pub id: String,
    /// What is known of it.
    pub medium: Medium,
    /// When it was last given out, in milliseconds since the Unix epoch.
    pub last_access: Option<u64>,
}

/// What a user takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Which media are deleted.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    /// Those last given out (or made) before this time, in milliseconds since the Unix epoch.
    pub before: u64,
    /// Those with more bytes.
    pub larger_than: u64,
    /// Not those at these `mxc:` addresses.
    pub kept: HashSet<String>,
}

impl Media {
    /// One medium that is here.
    pub async fn info(&self, server: &ServerName, id: &str) -> Result<Option<MediumInfo>, Error> {
        let Some(mut medium) = self.known(server, id).await? else { return Ok(None) };
        if let Some(hash) = medium.sha256.filter(|_| medium.quarantined_by.is_none() && !medium.protected) {
            let of_bytes = self.0.store.read().get::<Quarantines>(&hash).await?;
            medium.quarantined_by = of_bytes.map(|Json(quarantine)| quarantine.by);
        }
        let key = (server.to_owned(), id.to_owned());
        let last_access = self.last_access(&key).await?;
        Ok(Some(MediumInfo { server: key.0, id: key.1, medium, last_access }))
    }

    /// What a user has uploaded, the oldest first.
    pub async fn of_user(&self, user: &UserId) -> Result<Vec<MediumInfo>, Error> {
        let rows = self.0.store.read().scan_all::<UserMedia>(&user.to_owned()).await?;
        let mut found = Vec::with_capacity(rows.len());
        for ((_, _, id), _) in rows {
            found.extend(self.info(&self.0.server_name, &id).await?);
        }
        Ok(found)
    }

    /// What each user has uploaded from one time to another, in milliseconds since the Unix epoch.
    pub async fn usage(&self, from: u64, until: u64) -> Result<BTreeMap<OwnedUserId, Usage>, Error> {
        let mut usage: BTreeMap<OwnedUserId, Usage> = BTreeMap::new();
        for ((user, made, _), bytes) in self.0.store.read().scan_all::<UserMedia>(&()).await? {
            if (from..=until).contains(&made) {
                let of_user = usage.entry(user).or_default();
                of_user.count += 1;
                of_user.bytes += bytes;
            }
        }
        Ok(usage)
    }

    /// The bytes that each of these users has uploaded.
    pub async fn bytes_of_all(&self, users: &[OwnedUserId]) -> Result<Vec<u64>, Error> {
        let reader = self.0.store.read();
        let mut all = Vec::with_capacity(users.len());
        for (user, known) in users.iter().zip(reader.get_many::<UserBytes>(users).await?) {
            all.push(match known {
                Some(sum) => sum,
                None => counted(&reader, user).await?,
            });
        }
        Ok(all)
    }

    /// Deletes a medium of whichever server, with its thumbnails. [`Error::NotFound`]. Whether its bytes are under
    /// quarantine stays known.
    pub async fn delete(&self, server: &ServerName, id: &str) -> Result<(), Error> {
        again(|| self.try_delete(server, id)).await
    }

    async fn try_delete(&self, server: &ServerName, id: &str) -> Result<(), Error> {
        let key = (server.to_owned(), id.to_owned());
        let medium = self.known(server, id).await?.ok_or(Error::NotFound)?;
        self.delete_with(Tx::new(), key, medium).await
    }

    /// Deletes a medium as it was found, in one commit with what `tx` holds.
    pub(crate) async fn delete_with(
        &self,
        mut tx: Tx,
        key: (OwnedServerName, String),
        medium: Medium,
    ) -> Result<(), Error> {
        let blobs = self.draft_gone(&mut tx, &key, medium).await?;
        let media = self.clone();
        // To the end, whether anybody waits for it or not: files that nothing names any more would stay.
        let work = async move { media.forget(tx, &blobs).await };
        self.0.world.spawn("medium", work).await.map_err(|_| Error::Stopping)??;
        self.0.seen.lock().remove(&key);
        Ok(())
    }

    /// Drafts that a medium goes as it was found, with its thumbnails; gives the blobs that nothing names then.
    pub(crate) async fn draft_gone(
        &self,
        tx: &mut Tx,
        key: &(OwnedServerName, String),
        medium: Medium,
    ) -> Result<Vec<String>, Error> {
        let reader = self.0.store.read();
        let thumbnails = reader.scan::<Thumbnails>(key, Direction::Forward, usize::MAX).await?;
        drop(reader);
        tx.expect::<Table>(key, Some(&Json(medium.clone()))).delete::<Table>(key);
        tx.delete_prefix::<Thumbnails>(key).delete::<MediaAccess>(key);
        if let Some(hash) = medium.sha256 {
            tx.delete::<MediaByHash>(&(hash, key.0.clone(), key.1.clone()));
        }
        if let Some(user) = &medium.uploader {
            tx.delete::<UserMedia>(&(user.clone(), medium.created, key.1.clone()));
            tx.delete::<PendingMedia>(&(user.clone(), key.1.clone()));
            self.draft_freed(tx, user, medium.size).await?;
        }
        let thumbnails = thumbnails.into_iter().map(|(_, Json(made))| made.blob);
        Ok(medium.blob.into_iter().chain(thumbnails).collect())
    }

    /// Commits what names some blobs no more, and removes them.
    pub(crate) async fn forget(&self, tx: Tx, blobs: &[String]) -> Result<(), Error> {
        for blob in blobs {
            self.0.blobs.mark(blob).await?;
        }
        let done = self.0.store.commit(tx).await;
        for blob in blobs {
            match &done {
                Ok(_) => self.0.blobs.remove(blob).await,
                Err(_) => self.0.blobs.settle(blob).await,
            }
        }
        done?;
        Ok(())
    }

    /// Deletes media of this server; gives their ids.
    pub async fn delete_own(&self, which: &Deletion) -> Result<Vec<String>, Error> {
        let own = self.0.server_name.clone();
        let doomed = self.all(|info| {
            let address = format!("mxc://{}/{}", info.server, info.id);
            info.server == own && !info.medium.protected && !which.kept.contains(&address) && which.fits(info)
        });
        self.delete_all(doomed.await?).await
    }

    pub(crate) async fn delete_all(&self, doomed: Vec<MediumInfo>) -> Result<Vec<String>, Error> {
        let mut deleted = Vec::with_capacity(doomed.len());
        for info in doomed {
            match self.delete(&info.server, &info.id).await {
                Ok(()) => deleted.push(info.id),
                Err(Error::NotFound | Error::Store(chappe_store::Error::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    pub(crate) async fn all(&self, wanted: impl Fn(&MediumInfo) -> bool) -> Result<Vec<MediumInfo>, Error> {
        let (mut found, mut from) = (Vec::new(), None::<(OwnedServerName, String)>);
        loop {
            let reader = self.0.store.read();
            let page = match &from {
                None => reader.scan::<Table>(&(), Direction::Forward, PAGE).await?,
                Some(from) => reader.scan_from::<Table>(&(), from, PAGE).await?,
            };
            let is_last = page.len() < PAGE;
            let keys: Vec<_> = page.iter().map(|(key, _)| key.clone()).collect();
            let accesses = reader.get_many::<MediaAccess>(&keys).await?;
            drop(reader);
            from = keys.last().map(|(server, id)| (server.clone(), format!("{id}\0")));
            for (((server, id), Json(medium)), access) in page.into_iter().zip(accesses) {
                let noted = self.0.seen.lock().get(&(server.clone(), id.clone())).copied();
                let info = MediumInfo { server, id, medium, last_access: noted.or(access) };
                found.extend(Some(info).filter(&wanted));
            }
            if is_last {
                return Ok(found);
            }
        }
    }

    async fn last_access(&self, key: &(OwnedServerName, String)) -> Result<Option<u64>, Error> {
        let noted = self.0.seen.lock().get(key).copied();
        match noted {
            Some(at) => Ok(Some(at)),
            None => Ok(self.0.store.read().get::<MediaAccess>(key).await?),
        }
    }

    /// Notes that a medium was given out; kept in memory until [`Media::flush_seen`].
    pub(crate) fn saw(&self, server: &ServerName, id: &str) {
        let mut seen = self.0.seen.lock();
        if seen.len() < NOTED {
            seen.insert((server.to_owned(), id.to_owned()), self.0.world.now());
        }
    }

    /// Writes what was noted of media that were given out; meant to be called every minute and at shutdown.
    pub async fn flush_seen(&self) -> Result<(), Error> {
        let noted: Vec<_> = std::mem::take(&mut *self.0.seen.lock()).into_iter().collect();
        for some in noted.chunks(PAGE) {
            let keys: Vec<_> = some.iter().map(|(key, _)| key.clone()).collect();
            let reader = self.0.store.read();
            let (there, before) = reader.get_both::<Table, MediaAccess>(&keys, &keys).await?;
            drop(reader);
            let mut tx = Tx::new();
            for (((key, at), medium), before) in some.iter().zip(there).zip(before) {
                let is_news = before.is_none_or(|before| before + ACCESS_MS <= *at);
                if medium.is_some() && is_news {
                    tx.put::<MediaAccess>(key, at);
                }
            }
            if !tx.is_empty() {
                self.0.store.commit(tx).await?;
            }
        }
        Ok(())
    }
}

/// The bytes of all that a user has uploaded, for where their sum is not written yet.
pub(crate) async fn counted(reader: &Reader<'_>, user: &OwnedUserId) -> Result<u64, Error> {
    Ok(reader.scan_all::<UserMedia>(user).await?.iter().map(|(_, size)| size).sum())
}

impl MediumInfo {
    /// When it was last given out, or else came, in milliseconds since the Unix epoch.
    pub(crate) fn used(&self) -> u64 {
        self.last_access.unwrap_or(self.medium.created)
    }
}

impl Deletion {
    pub(crate) fn fits(&self, info: &MediumInfo) -> bool {
        info.used() < self.before && info.medium.size > self.larger_than
    }
}
