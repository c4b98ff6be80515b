//! How many may do something at a time, for each of many: servers, users.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::{ServerName, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::{Error, Media};

/// How long anybody waits for a place.
const WAIT: Duration = Duration::from_secs(30);
/// The same for thumbnails: a client that opens a room with many pictures asks for all of them at once.
const WAIT_TO_MAKE: Duration = Duration::from_mins(2);
/// From then on what is fetched comes slowly.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many times the places for what is fetched are there for what comes slowly.
pub(crate) const SLOW: usize = 2;
/// Names that are remembered before those that nobody uses are forgotten.
const NAMES: usize = 1_000;

/// A place among those who do something, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    _taken: OwnedSemaphorePermit,
}

/// Places by name.
pub(crate) struct Places {
    each: usize,
    names: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Places {
    pub(crate) fn new(each: usize) -> Self {
        Self { each: each.clamp(1, Semaphore::MAX_PERMITS), names: Mutex::default() }
    }

    pub(crate) async fn take(&self, name: &str) -> Result<Place, Error> {
        let places = {
            let mut names = self.names.lock();
            if names.len() >= NAMES {
                // Whoever has a place or waits for one holds on to the semaphore.
                names.retain(|_, places| Arc::strong_count(places) > 1);
            }
            let fresh = || Arc::new(Semaphore::new(self.each));
            Arc::clone(names.entry(name.to_owned()).or_insert_with(fresh))
        };
        Ok(Place { _taken: places.acquire_owned().await.map_err(|_| Error::Stopping)? })
    }
}

impl Media {
    /// A place for a user who uploads. [`Error::Busy`].
    pub(crate) async fn place_to_upload(&self, user: &UserId) -> Result<Place, Error> {
        let place = self.0.world.timeout(WAIT, self.0.uploading_for.take(user.as_str())).await;
        place.ok_or(Error::Busy)?
    }

    /// Places for making a thumbnail for somebody, which belong to the work: the one among all comes last. [`Error::Busy`].
    pub(crate) async fn places_to_make(&self, asker: &str) -> Result<(Place, OwnedSemaphorePermit), Error> {
        let both = async {
            let place = self.0.making_for.take(asker).await?;
            let making = Arc::clone(&self.0.making).acquire_owned().await;
            Ok((place, making.map_err(|_| Error::Stopping)?))
        };
        self.0.world.timeout(WAIT_TO_MAKE, both).await.ok_or(Error::Busy)?
    }

    /// A place for a user who has media of other servers fetched: kept while that is done. [`Error::Busy`].
    pub async fn place_for(&self, user: &UserId) -> Result<Place, Error> {
        let place = self.0.world.timeout(WAIT, self.0.fetching_for.take(user.as_str())).await;
        place.ok_or(Error::Busy)?
    }

    /// Places for fetching from a server: the one among all comes last, so that a slow server keeps none of those from others.
    pub(crate) async fn places_from(
        &self,
        server: &ServerName,
    ) -> Result<(Place, SemaphorePermit<'_>), Error> {
        let both = async {
            let place = self.0.fetching_from.take(server.as_str()).await?;
            Ok((place, self.0.fetching.acquire().await.map_err(|_| Error::Stopping)?))
        };
        self.0.world.timeout(WAIT, both).await.ok_or(Error::Busy)?
    }

    /// Fetches in a place among all, and gives it away for one among the slow once that takes long: several slow servers keep
    /// nobody from others.
    pub(crate) async fn in_place<T>(
        &self,
        place: SemaphorePermit<'_>,
        fetching: impl Future<Output = T>,
    ) -> T {
        let mut fetching = pin!(fetching);
        if let Some(fetched) = self.0.world.timeout(PATIENCE, &mut fetching).await {
            return fetched;
        }
        let _slow = tokio::select! {
            biased;
            fetched = &mut fetching => return fetched,
            slow = self.0.fetching_slowly.acquire() => slow,
        };
        drop(place);
        fetching.await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::Places;

    #[tokio::test]
    async fn each_has_so_many_places_and_nobody_takes_anothers() {
        let places = Places::new(2);
        let (_one, two) = (places.take("a").await.unwrap(), places.take("a").await.unwrap());
        assert!(places.take("a").now_or_never().is_none());
        assert!(places.take("b").now_or_never().is_some());
        drop(two);
        assert!(places.take("a").now_or_never().is_some());
        for name in 0..3_000 {
            places.take(&name.to_string()).await.unwrap();
        }
        assert!(places.names.lock().len() <= super::NAMES);
        let _three = places.take("a").await.unwrap();
        assert!(places.take("a").now_or_never().is_none(), "who has a place is not forgotten");
    }
}
