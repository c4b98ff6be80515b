//! Whether the wall clock can be relied on to take things away for good: it may be ahead for a while. The steady clock, and
//! when it was last seen to be right, show when it has moved.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::millis;

/// How far the wall clock may be from where it is expected, in milliseconds.
const DRIFT_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long it is not relied on after it was further away than that.
const WAIT: Duration = Duration::from_hours(1);

pub(crate) struct Wall(Mutex<Course>);

/// What the wall clock said at a point on the steady one, and until when it is not relied on.
struct Course {
    said: u64,
    at: Instant,
    doubted: Option<Instant>,
}

impl Wall {
    pub(crate) fn new(now: u64) -> Self {
        Self(Mutex::new(Course { said: now, at: Instant::now(), doubted: None }))
    }

    /// Expects the wall clock to be about there.
    pub(crate) fn expect(&self, now: u64) {
        let mut course = self.0.lock();
        (course.said, course.at) = (now, Instant::now());
    }

    /// The time that the wall clock says, if it can be relied on.
    pub(crate) fn settled(&self, now: u64) -> Option<u64> {
        let at = Instant::now();
        let mut course = self.0.lock();
        let expected = course.said.saturating_add(millis(at.saturating_duration_since(course.at)));
        if now.abs_diff(expected) > DRIFT_MS {
            tracing::error!(now, expected, "the clock has moved: for an hour nothing goes because it is old");
            *course = Course { said: now, at, doubted: Some(at + WAIT) };
        }
        course.doubted.is_none_or(|until| until <= at).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::Wall;

    const HOUR_MS: u64 = 60 * 60 * 1_000;
    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_moves_is_not_relied_on_for_an_hour() {
        let (wall, start) = (Wall::new(1_000), 1_000);
        assert_eq!(wall.settled(start), Some(start));
        advance(100 * HOUR).await;
        let now = start + 100 * HOUR_MS;
        assert_eq!(wall.settled(now), Some(now), "it goes as the steady one does");
        assert_eq!(wall.settled(now + 24 * HOUR_MS), Some(now + 24 * HOUR_MS), "it may be set right");
        assert_eq!(wall.settled(now + 25 * HOUR_MS), None);
        advance(HOUR / 2).await;
        let back = now + HOUR_MS / 2;
        assert_eq!(wall.settled(back), None, "it was set right again");
        advance(HOUR / 2).await;
        assert_eq!(wall.settled(now + HOUR_MS), None, "an hour from then on");
        advance(HOUR / 2).await;
        let now = back + HOUR_MS;
        assert_eq!(wall.settled(now), Some(now));
        assert_eq!(wall.settled(0), None, "nor one that went back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_expected_where_it_was_last_right() {
        let wall = Wall::new(100 * HOUR_MS);
        wall.expect(75 * HOUR_MS);
        assert_eq!(wall.settled(100 * HOUR_MS), None, "it was off for long, or is ahead");
        advance(HOUR).await;
        assert_eq!(wall.settled(101 * HOUR_MS), Some(101 * HOUR_MS));
        wall.expect(90 * HOUR_MS);
        assert_eq!(wall.settled(101 * HOUR_MS), Some(101 * HOUR_MS));
    }
}
