//! What the server thinks of an event.

use chappe_kv::Position;

use super::EventNum;
use crate::{
    Value,
    pack::{Packer, Unpacker},
    state::StateRef,
    tx::Error,
};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Part of the room; in the timeline if it has an ordinal.
    Accepted,
    /// Allowed where it stands, not by the current state: not shown, not followed.
    SoftFailed,
    /// Not allowed by the auth rules: only kept to know it again.
    Rejected,
    /// Known without its place in the room: as somebody's auth or state event.
    Outlier,
}

impl Status {
    fn code(self) -> u64 {
        match self {
            Self::Accepted => 0,
            Self::SoftFailed => 1,
            Self::Rejected => 2,
            Self::Outlier => 3,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        [Self::Accepted, Self::SoftFailed, Self::Rejected, Self::Outlier]
            .into_iter()
            .find(|s| s.code() == code)
    }
}

/// What the server thinks of an event; small, changes rarely (redacted, de-outliered).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// The commit that stored it, or that gave it its place in the timeline if that was later.
    pub position: Position,
    /// What became of it.
    pub status: Status,
    /// The state before it; [`StateRef::EMPTY`] for outliers.
    pub before: StateRef,
    /// The state after it.
    pub after: StateRef,
    /// Its place in the timeline. Outliers, rejected and soft-failed events have none.
    pub ordinal: Option<i64>,
    /// The redaction that applies to it.
    pub redacted_by: EventNum,
    /// Its auth events.
    pub auth: Vec<EventNum>,
    /// Its previous events, as far as this server has them.
    pub prev: Vec<EventNum>,
    /// Whether its content has expired: what is left of it is its redacted form, and no row of the timeline.
    pub expired: bool,
    /// When it came here, in milliseconds since 1970, if it claimed to be of a later time; 0 otherwise.
    pub came: u64,
}

impl EventMeta {
    pub(super) fn pack(&self) -> Vec<u8> {
        let mut to = Packer::default();
        let flags = self.status.code()
            | u64::from(self.ordinal.is_some()) << 2
            | u64::from(self.expired) << 3
            | u64::from(self.came != 0) << 4;
        to.uint(flags);
        if let Some(ordinal) = self.ordinal {
            to.int(ordinal);
        }
        to.raw(&self.before.pack());
        // Mostly the same line and the same or the next version.
        if self.after.line == self.before.line && self.after.version >= self.before.version {
            to.uint(u64::from(self.after.version - self.before.version) << 1);
        } else {
            to.uint(1).raw(&self.after.pack());
        }
        to.uint(self.redacted_by.0.into());
        to.list(self.auth.iter().map(|num| num.0)).list(self.prev.iter().map(|num| num.0));
        if self.came != 0 {
            to.uint(self.came);
        }
        to.done()
    }

    fn unpack(position: Position, mut from: Unpacker<'_>) -> Result<Self, Error> {
        let flags = from.uint()?;
        let status = Status::from_code(flags & 3).ok_or(from.damaged())?;
        let ordinal = if flags & 4 == 0 { None } else { Some(from.int()?) };
        let before = StateRef::unpack(&mut from)?;
        let step = from.uint()?;
        let after = if step == 1 {
            StateRef::unpack(&mut from)?
        } else {
            let step = u32::try_from(step >> 1).map_err(|_| from.damaged())?;
            let version = before.version.checked_add(step).ok_or(from.damaged())?;
            StateRef { line: before.line, version }
        };
        let redacted_by = EventNum(from.u32()?);
        let auth = from.list()?.into_iter().map(EventNum).collect();
        let prev = from.list()?.into_iter().map(EventNum).collect();
        let (expired, came) = (flags & 8 != 0, if flags & 16 == 0 { 0 } else { from.uint()? });
        Ok(Self { position, status, before, after, ordinal, redacted_by, auth, prev, expired, came })
    }
}

impl Value for EventMeta {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.position.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.pack());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "event record");
        let position = Position(u64::from_be_bytes(from.fixed()?));
        Self::unpack(position, from)
    }
}

/// The record of an event with these auth events: of the timeline, or of one that is known without its place.
#[cfg(test)]
pub(crate) fn sample(ordinal: Option<i64>, auth: Vec<EventNum>) -> EventMeta {
    let status = if ordinal.is_some() { Status::Accepted } else { Status::Outlier };
    EventMeta {
        position: Position(0),
        status,
        before: StateRef::EMPTY,
        after: StateRef::EMPTY,
        ordinal,
        redacted_by: EventNum::NONE,
        auth,
        prev: Vec::new(),
        expired: false,
        came: 0,
    }
}
