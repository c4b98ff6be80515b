//! What is removed by itself: previews that are old or too many, and media of other servers that nobody asks for or that there is no room for.

use std::collections::BTreeMap;

use chappe_store::media::Medium;

use crate::{Deletion, Error, Media};

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
    /// when those of other servers have outgrown their space.
    pub async fn upkeep(&self) -> Result<(), Error> {
        let previews = self.remove_old_previews().await? + self.make_room_for_previews().await?;
        let copies = if self.is_time_to_count() { self.remove_remote().await? } else { 0 };
        if previews + copies > 0 {
            tracing::info!(previews, copies, "old previews and copies of media removed");
        }
        Ok(())
    }

    /// Counts a medium that was fetched.
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
    async fn remove_remote(&self) -> Result<usize, Error> {
        let config = self.config();
        let (now, days) = (self.0.world.now(), config.remote_unused_days);
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

    /// Hour since the Unix epoch → bytes of those media of other servers that were last used in it.
    async fn remote_by_hour(&self) -> Result<BTreeMap<u64, u64>, Error> {
        let by_hour = parking_lot::Mutex::new(BTreeMap::new());
        self.all(|info| {
            let Medium { blob, size, created, .. } = &info.medium;
            if info.server != self.0.server_name && blob.is_some() {
                let used = info.last_access.unwrap_or(*created);
                *by_hour.lock().entry(used / HOUR_MS).or_insert(0) += size;
            }
            false
        })
        .await?;
        Ok(by_hour.into_inner())
    }

    /// Deletes what is kept of other servers' media and was last given out before a time; it is fetched again when it is
    /// asked for. Gives how many.
    pub async fn purge_remote(&self, before: u64) -> Result<usize, Error> {
        let own = self.0.server_name.clone();
        let which = Deletion { before, ..Deletion::default() };
        let doomed = self.all(|info| info.server != own && info.medium.blob.is_some() && which.fits(info));
        Ok(self.delete_all(doomed.await?).await?.len())
    }
}
