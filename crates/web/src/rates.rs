//! How often who may do what: one token bucket per action and subject.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tokio::time::Instant;

use crate::Error;

/// A rate: `burst` at once, then `per_second`. A rate of 0 per second is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many a second in the long run; 0 is unlimited.
    #[serde(deserialize_with = "not_negative")]
    pub per_second: f64,
    /// How many at once.
    pub burst: u32,
}

fn not_negative<'de, D: Deserializer<'de>>(written: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(written)?;
    if rate.is_finite() && rate >= 0.0 {
        Ok(rate)
    } else {
        Err(D::Error::custom("a rate is 0 or more a second"))
    }
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { per_second: 0.0, burst: 0 };

    /// A rate.
    pub const fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst }
    }

    /// How long so many take to be earned, a day at most.
    fn earning(self, tokens: f64) -> Duration {
        Duration::from_secs_f64((tokens / self.per_second).min(86_400.0))
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
    /// When it will have filled up.
    full_at: Instant,
}

type Buckets = HashMap<(&'static str, String), Bucket>;

/// Buckets kept before full ones are thrown away.
const SWEEP_AT: usize = 10_000;

/// Counts actions; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct RateLimiter {
    buckets: Arc<Mutex<(Buckets, usize)>>,
}

impl RateLimiter {
    /// Takes one token of `subject` (a user, an address) for `action`; 429 with the time to wait when there is none.
    pub fn check(&self, action: &'static str, subject: &str, rate: Rate) -> Result<(), Error> {
        self.check_many(action, subject, rate, 1)
    }

    /// The same for something that counts `count` times. What counts for more than a burst is let through when a whole burst
    /// is there, and paid for later.
    pub fn check_many(
        &self,
        action: &'static str,
        subject: &str,
        rate: Rate,
        count: u32,
    ) -> Result<(), Error> {
        if rate.per_second <= 0.0 {
            return Ok(());
        }
        let now = Instant::now();
        let mut guard = self.buckets.lock();
        let (buckets, sweep_at) = &mut *guard;
        if buckets.len() >= (*sweep_at).max(SWEEP_AT) {
            // One that has filled up is as good as a new one; an emptier one is not.
            buckets.retain(|_, bucket| bucket.full_at > now);
            *sweep_at = buckets.len() * 2;
        }
        let full = f64::from(rate.burst.max(1));
        let fresh = Bucket { tokens: full, at: now, full_at: now };
        let bucket = buckets.entry((action, subject.to_owned())).or_insert(fresh);
        let earned = now.duration_since(bucket.at).as_secs_f64() * rate.per_second;
        bucket.tokens = (bucket.tokens + earned).min(full);
        bucket.at = now;
        let needed = f64::from(count.max(1)).min(full);
        if bucket.tokens < needed {
            return Err(Error::limit_exceeded(rate.earning(needed - bucket.tokens)));
        }
        bucket.tokens -= f64::from(count.max(1));
        bucket.full_at = now + rate.earning(full - bucket.tokens);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Rate, RateLimiter};

    #[tokio::test]
    async fn a_bucket_empties_for_one_subject_and_one_action_alone() {
        let limiter = RateLimiter::default();
        let rate = Rate::new(0.001, 2);
        assert!(limiter.check("login", "a", rate).is_ok());
        assert!(limiter.check("login", "a", rate).is_ok());
        let refused = limiter.check("login", "a", rate).unwrap_err();
        assert_eq!(refused.status().as_u16(), 429);
        assert!(limiter.check("login", "b", rate).is_ok());
        assert!(limiter.check("join", "a", rate).is_ok());
        assert!(limiter.check("login", "a", Rate::UNLIMITED).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_bucket_is_not_forgotten_before_it_is_full() {
        let limiter = RateLimiter::default();
        let rate = Rate::new(0.001, 1);
        assert!(limiter.check("registration", "a", rate).is_ok());
        let crowd = |from: usize| {
            for name in from..from + super::SWEEP_AT {
                limiter.check("request", &name.to_string(), Rate::new(1.0, 10)).unwrap();
            }
        };
        tokio::time::advance(Duration::from_mins(11)).await;
        crowd(0);
        assert!(limiter.check("registration", "a", rate).is_err());
        tokio::time::advance(Duration::from_mins(20)).await;
        crowd(super::SWEEP_AT);
        let kept = limiter.buckets.lock().0.len();
        assert!(kept <= super::SWEEP_AT + 1, "those that are full are dropped: {kept}");
        assert!(limiter.check("registration", "a", rate).is_ok());
    }

    #[tokio::test]
    async fn what_counts_for_many_empties_the_bucket_at_once() {
        let limiter = RateLimiter::default();
        let rate = Rate::new(0.001, 10);
        assert!(limiter.check_many("lookup", "a", rate, 8).is_ok());
        assert!(limiter.check_many("lookup", "a", rate, 3).is_err());
        assert!(limiter.check_many("lookup", "a", rate, 2).is_ok());
        assert!(limiter.check_many("lookup", "b", rate, 1000).is_ok());
        assert!(limiter.check("lookup", "b", rate).is_err());
    }
}
