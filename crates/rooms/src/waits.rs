//! What fails for a while and is tried again with growing pauses. Kept in memory: after a restart it is tried anew.

use std::{
    borrow::Borrow,
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use parking_lot::Mutex;

/// The pause after the first failure, in milliseconds; doubled with each further one.
const FIRST_MS: u64 = 5 * 60 * 1_000;
/// The longest pause, in milliseconds.
const LONGEST_MS: u64 = 2 * 60 * 60 * 1_000;
/// How much is remembered.
const MOST: usize = 10_000;

#[derive(Clone, Copy)]
struct Failing {
    since: u64,
    pause: u64,
    until: u64,
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
    pub(crate) fn holds<Q: Eq + Hash + ?Sized>(&self, what: &Q, now: u64) -> bool
    where
        T: Borrow<Q>,
    {
        self.0.lock().get(what).is_some_and(|failing| failing.until > now)
    }

    /// Notes that it failed; gives for how long it has done so, in milliseconds.
    pub(crate) fn failed(&self, what: T, now: u64) -> u64 {
        let mut all = self.0.lock();
        if all.len() >= MOST {
            // What is due is tried again soon, and for how long it has failed is not forgotten before.
            all.retain(|_, failing| failing.until + LONGEST_MS > now);
        }
        let is_full = all.len() >= MOST;
        match all.entry(what) {
            Entry::Occupied(mut entry) => {
                let Failing { since, pause, until } = *entry.get();
                if until <= now {
                    let pause = (pause * 2).min(LONGEST_MS);
                    entry.insert(Failing { since, pause, until: now + pause });
                }
                now.saturating_sub(since)
            }
            Entry::Vacant(entry) => {
                if !is_full {
                    entry.insert(Failing { since: now, pause: FIRST_MS, until: now + FIRST_MS });
                }
                0
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
    use super::{FIRST_MS, LONGEST_MS, Waits};

    #[test]
    fn pauses_grow_up_to_the_longest_and_end_when_it_works() {
        let waits = Waits::default();
        let (mut now, mut pauses) = (1_000, Vec::new());
        for _ in 0..8 {
            waits.failed("x", now);
            // Failing again meanwhile changes nothing.
            waits.failed("x", now + 1);
            let until = (now..).step_by(60_000).find(|at| !waits.holds("x", *at)).unwrap();
            pauses.push(until - now);
            now = until;
        }
        assert_eq!(pauses[..3], [FIRST_MS, 2 * FIRST_MS, 4 * FIRST_MS]);
        assert_eq!(pauses.last(), Some(&LONGEST_MS));
        assert_eq!(waits.failed("x", now), now - 1_000);
        waits.worked("x");
        assert!(!waits.holds("x", now) && waits.failed("x", now) == 0);
    }
}
