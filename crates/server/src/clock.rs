//! When the wall clock was last relied on, on disk: if it is far from there at a start, nothing is taken away for an hour
//! because it is old.

use std::time::Duration;

use chappe_store::{Error, Meta, Store, Tx};
use chappe_world::World;

/// The row with the time, in milliseconds since 1970.
const NAME: &str = "clock";
/// How often it is written.
const EVERY: Duration = Duration::from_hours(1);

/// Tells the world where its clock is expected, before anybody relies on it.
pub(crate) async fn recall(world: &World, store: &Store) -> Result<(), Error> {
    if let Some(said) = store.read().get::<Meta>(&NAME.to_owned()).await? {
        let said =
            said.try_into().map(u64::from_be_bytes).map_err(|_| Error::Corrupt("time of the clock"))?;
        world.expect_clock(said);
    }
    note(world, store).await;
    Ok(())
}

/// Notes where the clock is, until the server stops. A wrong time is not noted.
pub(crate) async fn keep(world: World, store: Store) {
    let mut hours = world.interval(EVERY);
    // It was noted at the start.
    hours.tick().await;
    loop {
        tokio::select! {
            biased;
            () = world.stopping() => {}
            _ = hours.tick() => {}
        }
        note(&world, &store).await;
        if world.is_stopping() {
            return;
        }
    }
}

async fn note(world: &World, store: &Store) {
    let Some(now) = world.settled_now() else { return };
    let mut tx = Tx::new();
    tx.put::<Meta>(&NAME.to_owned(), &now.to_be_bytes().to_vec());
    if let Err(error) = store.commit(tx).await {
        tracing::warn!(%error, "the time is not noted");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chappe_kv::{Db, Memory};
    use chappe_store::Store;
    use chappe_world::{Fake, FakeNet, World};
    use tokio::time::advance;

    use super::{keep, recall};

    const HOUR: Duration = Duration::from_hours(1);

    /// A world that begins so many hours after the usual time.
    fn world(hours: u64) -> World {
        let fake = Fake::new("hs", 1, &FakeNet::new());
        World::fake(Fake { epoch_ms: fake.epoch_ms + hours * 60 * 60 * 1_000, ..fake })
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_far_ahead_at_a_start_is_relied_on_after_an_hour() {
        let store = Store::new(Db::new(Memory::default()));
        let first = world(0);
        recall(&first, &store).await.unwrap();
        first.spawn("clock", keep(first.clone(), store.clone()));
        advance(30 * HOUR).await;
        first.shut_down(HOUR).await;

        let soon = world(50);
        recall(&soon, &store).await.unwrap();
        assert!(soon.settled_now().is_some(), "it was noted while the server ran");
        for _ in 0..2 {
            let wrong = world(50 + 30 * 24);
            recall(&wrong, &store).await.unwrap();
            assert!(wrong.settled_now().is_none(), "not before somebody has relied on it");
        }
        let late = world(50 + 30 * 24);
        recall(&late, &store).await.unwrap();
        advance(HOUR).await;
        assert!(late.settled_now().is_some());
    }
}
