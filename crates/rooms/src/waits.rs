//! What fails for a while and is tried again with growing pauses. Kept in memory: after a restart it is tried anew.

use std::{
    borrow::Borrow,
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The pause after the first failure; doubled with each further one.
const FIRST: Duration = Duration::from_mins(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_hours(2);
/// How much is remembered.
const MOST: usize = 10_000;

#[derive(Clone, Copy)]
struct Failing {
    since: Instant,
    pause: Duration,
    until: Instant,
}

/// What has failed, and until when it is left alone.
pub(crate) struct Waits<T>(Mutex<HashMap<T, Failing>>);

impl<T> Default for Waits<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Eq + Hash> Waits<T> {
    /// Whether `what` is to be left alone.
    pub(crate) fn holds<Q: Eq + Hash + ?Sized>(&self, what: &Q, now: Instant) -> bool
    where
        T: Borrow<Q>,
    {
        self.0.lock().get(what).is_some_and(|failing| failing.until > now)
    }

    /// Notes that it failed; gives for how long it has done so.
    pub(crate) fn failed(&self, what: T, now: Instant) -> Duration {
        let mut all = self.0.lock();
        if all.len() >= MOST {
            // What is due is tried again soon, and for how long it has failed is not forgotten before.
            all.retain(|_, failing| failing.until + LONGEST > now);
        }
        let is_full = all.len() >= MOST;
        match all.entry(what) {
            Entry::Occupied(mut entry) => {
                let Failing { since, pause, until } = *entry.get();
                if until <= now {
                    let pause = (pause * 2).min(LONGEST);
                    entry.insert(Failing { since, pause, until: now + pause });
                }
                now.saturating_duration_since(since)
            }
            Entry::Vacant(entry) => {
                if !is_full {
                    entry.insert(Failing { since: now, pause: FIRST, until: now + FIRST });
                }
                Duration::ZERO
            }
        }
    }

    /// Notes that it worked, or is to be tried anew.
    pub(crate) fn worked<Q: Eq + Hash + ?Sized>(&self, what: &Q)
    where
        T: Borrow<Q>,
    {
        self.0.lock().remove(what);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{FIRST, LONGEST, Waits};

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn pauses_grow_up_to_the_longest_and_end_when_it_works() {
        let (waits, begun) = (Waits::default(), Instant::now());
        let (mut now, mut pauses) = (begun, Vec::new());
        for _ in 0..8 {
            waits.failed("x", now);
            // Failing again meanwhile changes nothing.
            waits.failed("x", now + Duration::from_millis(1));
            let failed = now;
            while waits.holds("x", now) {
                now += MINUTE;
            }
            pauses.push(now - failed);
        }
        assert_eq!(pauses[..3], [FIRST, 2 * FIRST, 4 * FIRST]);
        assert_eq!(pauses.last(), Some(&LONGEST));
        assert_eq!(waits.failed("x", now), now - begun);
        waits.worked("x");
        assert!(!waits.holds("x", now) && waits.failed("x", now).is_zero());
    }
}
