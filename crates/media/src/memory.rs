//! What is remembered for a short time, so that it is not done again at once.

use std::{collections::HashMap, hash::Hash};

use parking_lot::Mutex;

/// Outcomes remembered at most; beyond, new ones are not.
const MOST: usize = 10_000;

/// Outcomes by what they are about.
pub(crate) struct Memory<K, V> {
    keep_ms: u64,
    /// With the time until which each holds, in milliseconds since the Unix epoch.
    outcomes: Mutex<HashMap<K, (V, u64)>>,
}

impl<K: Eq + Hash, V: Copy> Memory<K, V> {
    pub(crate) fn new(keep_ms: u64) -> Self {
        Self { keep_ms, outcomes: Mutex::default() }
    }

    /// What came of it a short time ago.
    pub(crate) fn get(&self, key: &K, now: u64) -> Option<V> {
        self.outcomes.lock().get(key).filter(|(_, until)| *until > now).map(|(outcome, _)| *outcome)
    }

    /// Notes what came of it.
    pub(crate) fn put(&self, key: K, outcome: V, now: u64) {
        let mut outcomes = self.outcomes.lock();
        if outcomes.len() >= MOST {
            outcomes.retain(|_, (_, until)| *until > now);
        }
        if outcomes.len() < MOST {
            outcomes.insert(key, (outcome, now.saturating_add(self.keep_ms)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;

    #[test]
    fn an_outcome_holds_for_a_while_and_their_number_is_bounded() {
        let memory = Memory::new(10);
        memory.put(0, 'a', 100);
        assert_eq!((memory.get(&0, 109), memory.get(&0, 110), memory.get(&1, 100)), (Some('a'), None, None));
        for key in 0..super::MOST + 5 {
            memory.put(key, 'b', 100);
        }
        assert_eq!(memory.outcomes.lock().len(), super::MOST);
        memory.put(usize::MAX, 'c', 110);
        assert_eq!(memory.get(&usize::MAX, 111), Some('c'));
    }
}
