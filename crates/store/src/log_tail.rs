//! The end of the log in memory: what one follower has read, the others need not read again.

use std::collections::VecDeque;

use chappe_kv::Position;

use crate::Entry;

/// Entries kept.
const MOST: usize = 4_000;

/// All entries of the log after one position, up to another one.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    after: Position,
    to: Position,
    entries: VecDeque<Entry>,
}

impl Tail {
    /// The entries after `after` up to `to`, whole commits, about `limit` of them; `None` if not all of them are here.
    pub(crate) fn between(&self, after: Position, to: Position, limit: usize) -> Option<Vec<Entry>> {
        if after < self.after || to > self.to {
            return None;
        }
        let first = self.entries.partition_point(|entry| entry.position <= after);
        let mut found: Vec<Entry> = Vec::new();
        for entry in self.entries.range(first..).take_while(|entry| entry.position <= to) {
            let begins = found.last().is_none_or(|last| last.position != entry.position);
            if begins && found.len() >= limit {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }

    /// Takes in `entries`, which are all from after `after` up to `to`.
    pub(crate) fn extend(&mut self, after: Position, to: Position, entries: &[Entry]) {
        if to <= self.to {
            return;
        }
        if after < self.after || after > self.to {
            self.entries.clear();
            self.after = after;
            self.to = after;
        }
        self.entries.extend(entries.iter().filter(|entry| entry.position > self.to).cloned());
        self.to = to;
        while self.entries.len() > MOST
            && let Some(first) = self.entries.front().map(|entry| entry.position)
        {
            while self.entries.pop_front_if(|entry| entry.position == first).is_some() {}
            self.after = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::{MOST, Tail};
    use crate::{Entry, LogEntry, Position};

    fn entries(positions: &[u64]) -> Vec<Entry> {
        let what = LogEntry::Profile { user: owned_user_id!("@a:x.fr") };
        positions.iter().map(|at| Entry { position: Position(*at), what: what.clone() }).collect()
    }

    fn between(tail: &Tail, after: u64, to: u64, limit: usize) -> Option<Vec<u64>> {
        let found = tail.between(Position(after), Position(to), limit)?;
        Some(found.iter().map(|entry| entry.position.0).collect())
    }

    #[test]
    fn only_what_is_known_whole_is_answered() {
        let mut tail = Tail::default();
        tail.extend(Position(10), Position(20), &entries(&[12, 15, 15, 15, 19]));
        assert_eq!(between(&tail, 10, 20, 99), Some(vec![12, 15, 15, 15, 19]));
        assert_eq!(between(&tail, 12, 18, 99), Some(vec![15, 15, 15]));
        assert_eq!(between(&tail, 10, 20, 2), Some(vec![12, 15, 15, 15]), "commits are whole");
        assert_eq!(between(&tail, 19, 20, 99), Some(Vec::new()));
        assert_eq!(between(&tail, 9, 20, 99), None);
        assert_eq!(between(&tail, 10, 21, 99), None);
        tail.extend(Position(15), Position(25), &entries(&[19, 22]));
        assert_eq!(between(&tail, 10, 25, 99), Some(vec![12, 15, 15, 15, 19, 22]));
        tail.extend(Position(11), Position(24), &entries(&[12, 15, 15, 15, 19, 22]));
        assert_eq!(between(&tail, 15, 25, 99), Some(vec![19, 22]), "what is older changes nothing");
        tail.extend(Position(30), Position(40), &entries(&[31]));
        assert_eq!((between(&tail, 25, 40, 99), between(&tail, 30, 40, 99)), (None, Some(vec![31])));
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        let all: Vec<u64> = (1..=MOST as u64 + 10).flat_map(|at| [at, at]).collect();
        for (n, pair) in all.chunks(2).enumerate() {
            tail.extend(Position(n as u64), Position(n as u64 + 1), &entries(pair));
        }
        assert_eq!(tail.entries.len(), MOST);
        let to = MOST as u64 + 10;
        let after = to - MOST as u64 / 2;
        assert_eq!(between(&tail, after, to, usize::MAX).map(|found| found.len()), Some(MOST));
        assert_eq!(between(&tail, after - 1, to, usize::MAX), None);
    }
}
