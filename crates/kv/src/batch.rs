//! A conditional write: what must hold, and what changes then.

use bytes::Bytes;

use crate::{Position, engine::Range};

/// Bytes in which the commit's own position, 8 bytes big-endian, is filled in at commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamped {
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

impl Stamped {
    /// Appends plain bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends the place where the position goes.
    pub fn push_position(&mut self) {
        let offset = u32::try_from(self.bytes.len()).expect("a key or value is far below 4 GiB");
        self.offsets.push(offset);
        self.bytes.extend_from_slice(&[0; 8]);
    }

    /// The final bytes for a commit at `position`.
    pub fn fill(mut self, position: Position) -> Bytes {
        for offset in self.offsets {
            let at = offset as usize;
            self.bytes[at..at + 8].copy_from_slice(&position.0.to_be_bytes());
        }
        self.bytes.into()
    }

    /// Length in bytes; stamping does not change it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl From<Vec<u8>> for Stamped {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, offsets: Vec::new() }
    }
}

/// What must hold for a batch to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// The key has no value.
    Absent(Bytes),
    /// The key has exactly this value.
    Value(Bytes, Bytes),
}

impl Expectation {
    /// The key that is looked at.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Absent(key) | Self::Value(key, _) => key,
        }
    }

    /// Whether `found` is what is expected.
    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        match self {
            Self::Absent(_) => found.is_none(),
            Self::Value(_, value) => found == Some(&value[..]),
        }
    }
}

/// One change of a batch. Changes apply in order: a later one sees what an earlier one wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Stamped, Stamped),
    /// Removes a key, present or not.
    Delete(Bytes),
    /// Removes every key of a range.
    DeleteRange(Range),
    /// Adds to a counter: 8 bytes, big-endian, two's complement; an absent key counts as 0.
    Add(Bytes, i64),
}

/// Expectations and changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// All of these must hold, or the engine answers `Conflict`.
    pub expectations: Vec<Expectation>,
    /// Applied in order when they do.
    pub changes: Vec<Change>,
}

impl Batch {
    /// The bytes of all keys and values to be written.
    pub fn size(&self) -> usize {
        let size = |change: &Change| match change {
            Change::Put(key, value) => key.len() + value.len(),
            Change::Delete(key) => key.len(),
            Change::DeleteRange(range) => range.from.len() + range.to.len(),
            Change::Add(key, _) => key.len() + 8,
        };
        self.changes.iter().map(size).sum()
    }
}
