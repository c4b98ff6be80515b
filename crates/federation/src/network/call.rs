//! What a request may cost: how long it takes, how long its answer is, whether it is made at all.

use std::time::Duration;

use chappe_world::{Limits, World};

use super::Network;

/// The longest answer to a usual request, in bytes.
const MAX_BYTES: u64 = World::SHORT_BYTES;
/// The longest answer about the keys of users, in bytes, and what more each of them may take: one request of a client asks many
/// servers at a time. One user may have 2,000 devices.
const KEYS_BYTES: u64 = 3 << 20;
const KEYS_OF_USER: u64 = 64 << 10;
/// The longest answer that carries the state of a room, in bytes.
const MAX_STATE_BYTES: u64 = 512 << 20;
/// The longest answer that carries state nobody here asked for: a received event made us look, in bytes.
const MAX_TOLD_BYTES: u64 = 128 << 20;

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(super) limits: Limits,
    /// Whether a destination that is being waited for is tried all the same.
    pub(super) insists: bool,
    /// Whether it must not arrive twice.
    pub(super) once: bool,
}

impl Network {
    /// A usual request: short, and not sent to a server that is being waited for.
    pub(crate) fn brief(&self) -> Call {
        Call::within(self.config().timeout(), MAX_BYTES)
    }

    /// A request that makes the other server work, or whose answer holds the state of a room.
    pub(crate) fn long(&self) -> Call {
        Call::within(self.config().long_timeout(), MAX_STATE_BYTES)
    }

    /// A question about the state of a room that a received event raised.
    pub(crate) fn state(&self) -> Call {
        self.long().up_to(MAX_TOLD_BYTES)
    }
}

impl Call {
    fn within(deadline: Duration, max_bytes: u64) -> Self {
        Self { limits: Limits { max_bytes, deadline }, insists: false, once: false }
    }

    /// Tried even when the destination is being waited for: somebody is waiting for just this server.
    pub(crate) fn insisting(self) -> Self {
        Self { insists: true, ..self }
    }

    /// Never sent again when a connection breaks: it may have been dealt with.
    pub(crate) fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// For an answer about so many users' keys.
    pub(crate) fn about(self, users: usize) -> Self {
        let users = u64::try_from(users).unwrap_or(u64::MAX);
        self.up_to(KEYS_BYTES.saturating_add(users.saturating_mul(KEYS_OF_USER)).min(MAX_BYTES))
    }

    /// With another limit on the answer, in bytes.
    pub(crate) fn up_to(self, max_bytes: u64) -> Self {
        Self { limits: Limits { max_bytes, ..self.limits }, ..self }
    }

    /// Whether its answer is short, and takes none of the places for long ones.
    pub(super) fn is_short(self) -> bool {
        self.limits.max_bytes <= MAX_BYTES
    }
}
