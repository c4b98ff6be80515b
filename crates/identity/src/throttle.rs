//! So many things an hour for each key, and a wait when it is more.

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;

const HOUR_MS: u64 = 3_600_000;
/// Keys kept before those that have had their rest are dropped.
const KEYS: usize = 10_000;

/// Counts per key: a burst of `per_hour`, then one every hour/`per_hour`.
#[derive(Debug)]
pub(crate) struct Throttle<K> {
    per_hour: u64,
    /// For each key, the time in ms until which what it took is paid for.
    paid_until: Mutex<HashMap<K, u64>>,
}

impl<K: Eq + Hash> Throttle<K> {
    /// `per_hour` 0 never makes anyone wait.
    pub(crate) fn new(per_hour: u32) -> Self {
        Self { per_hour: per_hour.into(), paid_until: Mutex::default() }
    }

    /// Takes one at `now` (ms), or tells how long to wait.
    pub(crate) fn take(&self, key: K, now: u64) -> Result<(), Duration> {
        if self.per_hour == 0 {
            return Ok(());
        }
        let mut paid_until = self.paid_until.lock();
        if paid_until.len() >= KEYS {
            paid_until.retain(|_, until| *until > now);
        }
        let until = paid_until.get(&key).copied().unwrap_or(0).max(now) + HOUR_MS / self.per_hour;
        if until > now + HOUR_MS {
            return Err(Duration::from_millis(until - now - HOUR_MS));
        }
        paid_until.insert(key, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Throttle;

    #[test]
    fn a_burst_then_a_steady_drip() {
        let throttle = Throttle::new(2);
        assert_eq!(throttle.take("a", 0), Ok(()));
        assert_eq!(throttle.take("a", 0), Ok(()));
        assert_eq!(throttle.take("a", 0), Err(Duration::from_mins(30)));
        assert_eq!(throttle.take("b", 0), Ok(()));
        assert_eq!(throttle.take("a", 1_799_999), Err(Duration::from_millis(1)));
        assert_eq!(throttle.take("a", 1_800_000), Ok(()));
        assert!(throttle.take("a", 1_800_000).is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let throttle = Throttle::new(0);
        assert!((0..1000).all(|_| throttle.take("a", 0).is_ok()));
    }
}
