//! Places for those that are being sent to, of each kind their own: the dead never hold up the living, nor those that were away for
//! a moment.

use std::time::Duration;

use chappe_store::Error;
use ruma::ServerName;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Sender, transaction::Batch, untaken::Untaken};
use crate::backoff::Standing;

/// How long a destination keeps its place without an answer, if there is one among the slow.
const PATIENCE: Duration = Duration::from_millis(200);
/// As many times the places of those who answered last time are there for those of them who are slow.
const SLOW: usize = 8;

/// Places for destinations, by what is to be expected of them.
pub(super) struct Pools {
    there: Pool,
    doubtful: Pool,
    gone: Pool,
}

struct Pool {
    quick: Semaphore,
    /// For those that take long.
    slow: Semaphore,
}

/// A place among those that are served.
pub(super) struct Place<'a> {
    place: SemaphorePermit<'a>,
    slow: &'a Semaphore,
}

impl Pools {
    /// With so many places for those who answered last time.
    pub(super) fn new(places: usize) -> Self {
        let [doubtful, gone] = [(); 2].map(|()| Pool::new(places / 4, places));
        Self { there: Pool::new(places, places.saturating_mul(SLOW)), doubtful, gone }
    }

    fn of(&self, standing: Standing) -> &Pool {
        match standing {
            Standing::There => &self.there,
            Standing::Doubtful => &self.doubtful,
            Standing::Gone => &self.gone,
        }
    }
}

impl Pool {
    fn new(quick: usize, slow: usize) -> Self {
        let places = |count: usize| Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS));
        Self { quick: places(quick), slow: places(slow) }
    }
}

impl Sender {
    /// Waits for a place for a destination; for one of another kind as soon as something else is to be expected of it.
    pub(super) async fn place(&self, destination: &ServerName) -> Result<Place<'_>, Error> {
        let (word, backoff) = (self.0.lanes.word_of(destination), self.0.network.backoff());
        let mut standing = backoff.standing(destination).await?;
        loop {
            let Pool { quick, slow } = self.0.pools.of(standing);
            let mut turn = std::pin::pin!(quick.acquire());
            // Where the word changes nothing it goes on waiting where it stands: it comes again and again.
            standing = loop {
                tokio::select! {
                    biased;
                    Ok(place) = &mut turn => return Ok(Place { place, slow }),
                    () = word.notified() => {}
                }
                let now = backoff.standing(destination).await?;
                if now != standing {
                    break now;
                }
            };
        }
    }

    /// Transmits, and gives the place away for one among the slow once the patience is over: many that are silent at the
    /// same time must not keep all places until their time is up.
    pub(super) async fn transmit_in(
        &self,
        Place { place, slow }: Place<'_>,
        destination: &ServerName,
        batch: &Batch,
    ) -> Result<(), Untaken> {
        let mut transmitting = std::pin::pin!(self.transmit(destination, batch));
        tokio::select! {
            biased;
            done = &mut transmitting => return done,
            () = self.0.network.world().sleep(PATIENCE) => {}
        }
        let _place = slow.try_acquire().unwrap_or(place);
        transmitting.await
    }
}
