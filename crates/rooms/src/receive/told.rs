//! How much states that other servers tell may change here.

use std::{collections::HashMap, time::Duration};

use chappe_store::EventNum;
use parking_lot::Mutex;
use ruma::OwnedServerName;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_hours(1);
/// Servers that are remembered.
const MOST: usize = 10_000;
/// How many times as much pages of old history may cost.
const FOR_PAGES: usize = 10;

/// What the costs of a server's events count as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purse {
    /// Of what it sends.
    News,
    /// Of pages of old history, for which users of this server ask: the states there are far from the current one for good
    /// reasons.
    Pages,
}

/// Against whom costs count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Payer {
    /// Who gives the events, or has this server ask others for them.
    pub(super) server: OwnedServerName,
    /// What these are.
    pub(super) purse: Purse,
}

/// A state as a server tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its events, all stored here.
    pub(super) events: Vec<EventNum>,
    /// Against whom what it changes counts; none: this server asked of its own accord.
    pub(super) by: Option<Payer>,
}

/// Until when servers have used up what they may have written of what they tell. Each key on which a told state differs from
/// the current one is a row that stays. How many these are is not known before the state is here, and an old state of a
/// large room is far from the current one for good reasons: it is taken whole, and paid for later.
#[derive(Debug, Default)]
pub(crate) struct Tellers(Mutex<HashMap<Payer, Instant>>);

impl Tellers {
    /// Whether a server has used up an hour and more.
    pub(super) fn is_spent(&self, by: &Payer, now: Instant) -> bool {
        self.0.lock().get(by).is_some_and(|until| *until >= now + HOUR)
    }

    /// Counts changed keys, of which a server has so many an hour for what it sends.
    pub(super) fn spend(&self, by: &Payer, changed: usize, (per_hour, now): (usize, Instant)) {
        let per_hour = match by.purse {
            Purse::News => per_hour,
            Purse::Pages => per_hour.saturating_mul(FOR_PAGES),
        };
        let count = |keys: usize| u32::try_from(keys).unwrap_or(u32::MAX);
        let time = HOUR.saturating_mul(count(changed)) / count(per_hour).max(1);
        let mut used = self.0.lock();
        if used.len() >= MOST {
            used.retain(|_, until| *until > now);
        }
        if used.len() < MOST || used.contains_key(by) {
            let until = used.entry(by.clone()).or_insert(now);
            *until = now.max(*until) + time;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ruma::owned_server_name;
    use tokio::time::Instant;

    use super::{FOR_PAGES, HOUR, Payer, Purse, Tellers};

    #[test]
    fn a_server_uses_up_what_it_has_and_nothing_of_others() {
        let (tellers, begun) = (Tellers::default(), Instant::now());
        let news = |server| Payer { server, purse: Purse::News };
        let (one, other) = (news(owned_server_name!("a.example")), news(owned_server_name!("b.example")));
        tellers.spend(&one, 99, (100, begun));
        assert!(!tellers.is_spent(&one, begun));
        tellers.spend(&one, 201, (100, begun));
        assert!(tellers.is_spent(&one, begun + HOUR) && !tellers.is_spent(&other, begun + HOUR));
        assert!(!tellers.is_spent(&one, begun + 2 * HOUR + Duration::from_millis(1)));
    }

    #[test]
    fn pages_of_old_history_cost_nothing_of_what_news_may() {
        let (tellers, begun) = (Tellers::default(), Instant::now());
        let [news, pages] =
            [Purse::News, Purse::Pages].map(|purse| Payer { server: owned_server_name!("a.example"), purse });
        tellers.spend(&pages, 100 * FOR_PAGES - 1, (100, begun));
        assert!(!tellers.is_spent(&pages, begun));
        tellers.spend(&pages, 1, (100, begun));
        assert!(tellers.is_spent(&pages, begun) && !tellers.is_spent(&news, begun));
    }
}
