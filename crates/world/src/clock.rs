//! Wall time, from the system or from a chosen beginning.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) enum Clock {
    System,
    /// Counts from a chosen time along tokio's clock, which tests may pause.
    Fake {
        epoch_ms: u64,
        start: Instant,
        /// How far it was set ahead.
        ahead_ms: AtomicU64,
    },
}

impl Clock {
    pub(crate) fn system() -> Self {
        Self::System
    }

    pub(crate) fn from(epoch_ms: u64) -> Self {
        Self::Fake { epoch_ms, start: Instant::now(), ahead_ms: AtomicU64::new(0) }
    }

    /// Sets a fake clock ahead of where it would be; the system's stays.
    pub(crate) fn set_ahead(&self, by_ms: u64) {
        if let Self::Fake { ahead_ms, .. } = self {
            ahead_ms.store(by_ms, Relaxed);
        }
    }

    pub(crate) fn now(&self) -> u64 {
        match self {
            Self::System => {
                #[expect(clippy::disallowed_methods, reason = "this is where the clock comes from")]
                let now = SystemTime::now();
                now.duration_since(UNIX_EPOCH).map_or(0, millis)
            }
            Self::Fake { epoch_ms, start, ahead_ms } => {
                epoch_ms + ahead_ms.load(Relaxed) + millis(start.elapsed())
            }
        }
    }
}

pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[tokio::test]
    async fn a_fake_clock_begins_where_it_is_told_and_follows_tokio() {
        let clock = Clock::from(1_000);
        assert!((1_000..11_000).contains(&clock.now()));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        assert!(clock.now() >= 1_005);
    }
}
