//! What is removed by itself: previews that are old or too many, and media of other servers that nobody asks for or that there is no room for.

use std::collections::{BTreeMap, HashSet};

use chappe_store::{
    Json,
    media::{Media as Table, MediaAccess, Thumbnail},
};

use crate::{Error, Media, MediumInfo, thumbnail::Key};

const HOUR_MS: u64 = 60 * 60 * 1_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// What media of other servers take up.
#[derive(Debug, Default)]
pub(crate) struct RemoteSpace {
    /// Bytes when they were last counted, and what has come since.
    bytes: u64,
    /// When they were last counted, in milliseconds since the Unix epoch.
    counted: Option<u64>,
}

impl Media {
    /// Removes what is too old or too much; meant to be called every few minutes: all media are looked at once a day, or
    /// when those of other servers have outgrown their space. Nothing goes while the clock cannot be relied on.
    pub async fn upkeep(&self) -> Result<(), Error> {
        let Some(now) = self.0.world.settled_now() else { return Ok(()) };
        let previews = self.remove_old_previews().await? + self.make_room_for_previews().await?;
        let copies = if self.is_time_to_count() { self.remove_remote(now).await? } else { 0 };
        if previews + copies > 0 {
            tracing::info!(previews, copies, "old previews and copies of media removed");
        }
        Ok(())
    }

    /// Counts a medium that was fetched, or a thumbnail that was made of one.
    pub(crate) fn remote_grew(&self, bytes: u64) {
        let mut space = self.0.remote_space.lock();
        space.bytes = space.bytes.saturating_add(bytes);
    }

    fn is_time_to_count(&self) -> bool {
        let (config, space) = (self.config(), self.0.remote_space.lock());
        let is_limited = config.remote_unused_days > 0 || config.remote_space_bytes > 0;
        let is_full = config.remote_space_bytes > 0 && space.bytes > config.remote_space_bytes;
        let now = self.0.world.now();
        is_limited && (is_full || space.counted.is_none_or(|counted| counted + DAY_MS <= now))
    }

    /// Removes media of other servers that were not given out for long, then more of them until the rest has room.
    async fn remove_remote(&self, now: u64) -> Result<usize, Error> {
        let config = self.config();
        let days = config.remote_unused_days;
        let mut removed = 0;
        if days > 0 {
            removed += self.purge_remote(now.saturating_sub(days.saturating_mul(DAY_MS))).await?;
        }
        let by_hour = self.remote_by_hour().await?;
        let mut bytes: u64 = by_hour.values().sum();
        let mut before = 0;
        for (hour, freed) in by_hour {
            if config.remote_space_bytes == 0 || bytes <= config.remote_space_bytes {
                break;
            }
            bytes -= freed;
            before = (hour + 1) * HOUR_MS;
        }
        if before > 0 {
            removed += self.purge_remote(before).await?;
        }
        *self.0.remote_space.lock() = RemoteSpace { bytes, counted: Some(now) };
        Ok(removed)
    }

    /// Hour since the Unix epoch → bytes of those media of other servers that were last used in it, with their thumbnails.
    async fn remote_by_hour(&self) -> Result<BTreeMap<u64, u64>, Error> {
        let by_hour = parking_lot::Mutex::new(BTreeMap::new());
        self.all(|info| {
            if info.server != self.0.server_name && info.medium.blob.is_some() {
                *by_hour.lock().entry(info.used() / HOUR_MS).or_insert(0) += info.medium.size;
            }
            false
        })
        .await?;
        let mut by_hour = by_hour.into_inner();
        let (mut from, mut counted) = (None, HashSet::<String>::new());
        loop {
            let (page, next) = self.some_thumbnails(from).await?;
            let before = std::mem::take(&mut counted);
            for (info, blob, size) in self.made_of_remote(page).await? {
                // One may have two names, which follow each other, or be the medium itself.
                let is_itself = info.medium.blob.as_ref() == Some(&blob);
                if !is_itself && !before.contains(&blob) && counted.insert(blob) {
                    *by_hour.entry(info.used() / HOUR_MS).or_insert(0) += size;
                }
            }
            from = next;
            if from.is_none() {
                return Ok(by_hour);
            }
        }
    }

    /// Of these thumbnails those of other servers' media: the medium, the thumbnail's blob, its bytes.
    async fn made_of_remote(
        &self,
        mut page: Vec<(Key, Thumbnail)>,
    ) -> Result<Vec<(MediumInfo, String, u64)>, Error> {
        page.retain(|((server, ..), _)| !self.is_local(server));
        let keys: Vec<_> = page.iter().map(|((server, id, _), _)| (server.clone(), id.clone())).collect();
        let (media, accesses) = self.0.store.read().get_both::<Table, MediaAccess>(&keys, &keys).await?;
        let mut made_of = Vec::with_capacity(page.len());
        for ((((server, id, _), made), medium), access) in page.into_iter().zip(media).zip(accesses) {
            let Some(Json(medium)) = medium else { continue };
            let noted = self.0.seen.lock().get(&(server.clone(), id.clone())).copied();
            let info = MediumInfo { server, id, medium, last_access: noted.or(access) };
            made_of.push((info, made.blob, made.size));
        }
        Ok(made_of)
    }

    /// Deletes what is kept of other servers' media and was last given out before a time; it is fetched again when it is
    /// asked for. Gives how many.
    pub async fn purge_remote(&self, before: u64) -> Result<usize, Error> {
        let own = self.0.server_name.clone();
        let is_doomed =
            |info: &MediumInfo| info.server != own && info.medium.blob.is_some() && info.used() < before;
        let doomed = self.all(is_doomed);
        Ok(self.delete_all(doomed.await?).await?.len())
    }
}
