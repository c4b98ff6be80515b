//! The effect of changes that are decided but not yet written, so that several batches can share one write.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Change, Position, Range};

/// Pending changes over a base that is read by key. An engine asks it first and the base second.
#[derive(Debug, Default)]
pub struct Overlay {
    /// `None` is a removed key.
    values: BTreeMap<Bytes, Option<Bytes>>,
    ranges: Vec<Range>,
}

/// A change as the base has to apply it: counters resolved, positions filled in.
#[derive(Debug)]
pub enum Resolved {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
    /// Removes a range.
    DeleteRange(Range),
}

impl Overlay {
    /// The pending value of `key`: `None` when nothing pending touches it, `Some(None)` when it is removed.
    pub fn get(&self, key: &[u8]) -> Option<Option<&Bytes>> {
        if let Some(value) = self.values.get(key) {
            return Some(value.as_ref());
        }
        self.ranges.iter().any(|range| range.contains(key)).then_some(None)
    }

    /// Takes in one change of the batch at `position`. `base` reads a key below the overlay.
    pub fn apply<E>(
        &mut self,
        change: Change,
        position: Position,
        base: impl FnOnce(&[u8]) -> Result<Option<Bytes>, E>,
    ) -> Result<Resolved, E> {
        Ok(match change {
            Change::Put(key, value) => {
                let (key, value) = (key.fill(position), value.fill(position));
                self.values.insert(key.clone(), Some(value.clone()));
                Resolved::Put(key, value)
            }
            Change::Delete(key) => {
                self.values.insert(key.clone(), None);
                Resolved::Delete(key)
            }
            Change::DeleteRange(range) => {
                let inside: Vec<Bytes> =
                    self.values.range(range.from.clone()..range.to.clone()).map(|(k, _)| k.clone()).collect();
                for key in inside {
                    self.values.insert(key, None);
                }
                self.ranges.push(range.clone());
                Resolved::DeleteRange(range)
            }
            Change::Add(key, delta) => {
                let before = match self.get(&key) {
                    Some(pending) => pending.cloned(),
                    None => base(&key)?,
                };
                let sum = counter(before.as_deref()).wrapping_add(delta);
                let value = Bytes::copy_from_slice(&sum.to_be_bytes());
                self.values.insert(key.clone(), Some(value.clone()));
                Resolved::Put(key, value)
            }
        })
    }
}

fn counter(value: Option<&[u8]>) -> i64 {
    value.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes)
}
