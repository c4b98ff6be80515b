//! What is removed and written now and then: of rooms, accounts, OAuth, and media that nobody needs any more.

use std::time::Duration;

use chappe_accounts::Accounts;
use chappe_media::{Deletion, Media};
use chappe_oauth::OAuth;
use chappe_rooms::Rooms;
use chappe_scanner::Examiner;
use chappe_store::Store;
use chappe_world::World;

/// How often what has expired is swept.
const SWEEP: Duration = Duration::from_mins(5);
/// How often the times devices and media were last seen are written.
const FLUSH: Duration = Duration::from_mins(1);
/// How often it is looked which media nobody needs any more.
const TIDY: Duration = Duration::from_mins(10);
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Removes what has ended of rooms, and finishes what a stop has interrupted.
pub(crate) async fn keep_rooms(world: World, rooms: Rooms, store: Store) {
    let mut sweep = world.interval(SWEEP);
    loop {
        tokio::select! {
            () = world.stopping() => break,
            _ = sweep.tick() => {}
        }
        let swept = rooms.sweep().await;
        if let Err(error) = swept.and(rooms.resume_announcements().await) {
            tracing::warn!(%error, "rooms upkeep");
        }
        let departures = tokio::select! {
            () = world.stopping() => break,
            departures = rooms.finish_departures() => departures,
        };
        if let Err(error) = departures {
            tracing::warn!(%error, "rooms of closed accounts");
        }
        if let Err(error) = store.trim_log().await {
            tracing::warn!(%error, "log upkeep");
        }
    }
}

/// Removes what has ended of accounts, and writes when they were last used.
pub(crate) async fn keep_accounts(world: World, accounts: Accounts) {
    let (mut flush, mut sweep) = (world.interval(FLUSH), world.interval(SWEEP));
    loop {
        let done = tokio::select! {
            biased;
            () = world.stopping() => break,
            _ = sweep.tick() => accounts.sweep().await.map(drop),
            _ = flush.tick() => accounts.flush_seen().await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "accounts upkeep");
        }
    }
    if let Err(error) = accounts.flush_seen().await {
        tracing::warn!(%error, "times of last use not written");
    }
}

/// Removes what has ended of OAuth.
pub(crate) async fn keep_oauth(world: World, oauth: OAuth) {
    let sweep = || async {
        if let Err(error) = oauth.sweep().await {
            tracing::warn!(%error, "oauth upkeep");
        }
    };
    world.every(SWEEP, sweep).await;
}

/// Whose media are kept, and who knows what may go.
pub(crate) struct MediaKeeper {
    pub(crate) world: World,
    pub(crate) media: Media,
    pub(crate) examiner: Option<Examiner>,
    pub(crate) accounts: Accounts,
    pub(crate) rooms: Rooms,
}

impl MediaKeeper {
    /// Writes when media were last given out, and removes what nobody needs any more.
    pub(crate) async fn run(self) {
        let Self { world, media, .. } = &self;
        let (mut flush, mut tidy) = (world.interval(FLUSH), world.interval(TIDY));
        let mut looked_through = None;
        // A server that has just started has better things to do.
        tidy.tick().await;
        while !world.is_stopping() {
            tokio::select! {
                biased;
                () = world.stopping() => {}
                _ = flush.tick() => {}
                _ = tidy.tick() => self.tidy(&mut looked_through).await,
            }
            if let Err(error) = media.flush_seen().await {
                tracing::warn!(%error, "times at which media were given out are not written");
            }
        }
    }

    /// `looked_through` says when it was last looked which uploads nobody asks for, in milliseconds since 1970.
    async fn tidy(&self, looked_through: &mut Option<u64>) {
        if let Err(error) = self.media.upkeep().await {
            tracing::warn!(%error, "old previews and copies of media are not removed");
        }
        let unnamed = async {
            if self.rooms.retention().is_none() {
                // What is named from now on is not noted.
                return self.media.keep_unnamed().await.map(|()| 0);
            }
            self.media.remove_unnamed().await
        };
        match unnamed.await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "media of expired events removed"),
            Err(error) => tracing::warn!(%error, "media of expired events are not removed"),
        }
        if let Some(now) = self.world.settled_now()
            && looked_through.is_none_or(|at| at + DAY_MS <= now)
        {
            *looked_through = Some(now);
            self.remove_unused(now).await;
        }
        if let Some(examiner) = &self.examiner
            && let Err(error) = examiner.sweep().await
        {
            tracing::warn!(%error, "old verdicts on media are not removed");
        }
    }

    /// Removes uploads that nobody has asked for in so many days, but for the pictures of users and rooms.
    async fn remove_unused(&self, now: u64) {
        let days = self.media.config().own_unused_days;
        if days == 0 {
            return;
        }
        let removing = async {
            let kept = chappe_admin::pictures(&self.accounts, &self.rooms).await?;
            let before = now.saturating_sub(days.saturating_mul(DAY_MS));
            Ok::<_, anyhow::Error>(
                self.media.delete_own(&Deletion { before, larger_than: 0, kept }).await?.len(),
            )
        };
        match removing.await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "uploads that nobody asks for removed"),
            Err(error) => tracing::warn!(%error, "uploads that nobody asks for are not removed"),
        }
    }
}
