//! How much states that other servers tell may change here.

use std::collections::HashMap;

use chappe_store::EventNum;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

const HOUR_MS: u64 = 60 * 60 * 1_000;
/// Servers that are remembered.
const MOST: usize = 10_000;

/// A state as a server tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its events, all stored here.
    pub(super) events: Vec<EventNum>,
    /// Against whom what it changes counts; none: this server asked of its own accord.
    pub(super) by: Option<OwnedServerName>,
}

/// Until when servers have used up what they may have written of what they tell. Each key on which a told state differs from
/// the current one is a row that stays. How many these are is not known before the state is here, and an old state of a
/// large room is far from the current one for good reasons: it is taken whole, and paid for later.
#[derive(Debug, Default)]
pub(crate) struct Tellers(Mutex<HashMap<OwnedServerName, u64>>);

impl Tellers {
    /// Whether a server has used up an hour and more.
    pub(super) fn is_spent(&self, server: &ServerName, now: u64) -> bool {
        self.0.lock().get(server).is_some_and(|until| *until >= now + HOUR_MS)
    }

    /// Counts changed keys, of which a server has so many an hour.
    pub(super) fn spend(&self, server: &ServerName, changed: usize, (per_hour, now): (usize, u64)) {
        let time = HOUR_MS.saturating_mul(changed as u64) / per_hour.max(1) as u64;
        let mut used = self.0.lock();
        if used.len() >= MOST {
            used.retain(|_, until| *until > now);
        }
        if used.len() < MOST || used.contains_key(server) {
            let until = used.entry(server.to_owned()).or_default();
            *until = now.max(*until).saturating_add(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::{HOUR_MS, Tellers};

    #[test]
    fn a_server_uses_up_what_it_has_and_nothing_of_others() {
        let tellers = Tellers::default();
        let (one, other) = (server_name!("a.example"), server_name!("b.example"));
        tellers.spend(one, 99, (100, 0));
        assert!(!tellers.is_spent(one, 0));
        tellers.spend(one, 201, (100, 0));
        assert!(tellers.is_spent(one, HOUR_MS) && !tellers.is_spent(other, HOUR_MS));
        assert!(!tellers.is_spent(one, 2 * HOUR_MS + 1));
    }
}
