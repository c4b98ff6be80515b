//! So many things an hour for each key, and a wait when it is more.

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;

const HOUR_MS: u64 = 3_600_000;
/// Keys kept before those that have had their rest are dropped.
const KEYS: usize = 10_000;

/// Counts per key: a burst of `per_hour`, then one every hour/`per_hour`.
#[derive(Debug)]
pub(crate) struct Throttle<K> {
    /// For each key, the time in ms until which what it took is paid for.
    paid_until: Mutex<HashMap<K, u64>>,
}

impl<K> Default for Throttle<K> {
    fn default() -> Self {
        Self { paid_until: Mutex::default() }
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// Takes one at `now` (ms), or tells how long to wait. `per_hour` 0 never makes anyone wait.
    pub(crate) fn take(&self, key: K, per_hour: u32, now: u64) -> Result<(), Duration> {
        if per_hour == 0 {
            return Ok(());
        }
        let mut paid_until = self.paid_until.lock();
        if paid_until.len() >= KEYS {
            paid_until.retain(|_, until| *until > now);
        }
        let until = paid_until.get(&key).copied().unwrap_or(0).max(now) + HOUR_MS / u64::from(per_hour);
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
        let throttle = Throttle::default();
        assert_eq!(throttle.take("a", 2, 0), Ok(()));
        assert_eq!(throttle.take("a", 2, 0), Ok(()));
        assert_eq!(throttle.take("a", 2, 0), Err(Duration::from_mins(30)));
        assert_eq!(throttle.take("b", 2, 0), Ok(()));
        assert_eq!(throttle.take("a", 2, 1_799_999), Err(Duration::from_millis(1)));
        assert_eq!(throttle.take("a", 2, 1_800_000), Ok(()));
        assert!(throttle.take("a", 2, 1_800_000).is_err());
        assert_eq!(throttle.take("a", 60, 1_860_000), Ok(()), "the limit was raised");
    }

    #[test]
    fn zero_is_no_limit() {
        let throttle = Throttle::default();
        assert!((0..1000).all(|_| throttle.take("a", 0, 0).is_ok()));
    }
}
