//! Join, invite, leave, kick, ban, unban, knock, forget: for local users, in local and remote rooms.

use ruma::{OwnedServerName, OwnedUserId, RoomId, UserId};

use crate::{Actor, Error, Result, Rooms};

/// Servers to ask when this server is not in the room.
pub type Via = Vec<OwnedServerName>;

/// What one user does to another's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Invite; another server's user is asked through that server first.
    Invite,
    /// Remove a joined, invited or knocking user.
    Kick,
    /// Remove and keep out.
    Ban,
    /// Lift a ban.
    Unban,
}

impl Rooms {
    /// Joins `actor` to the room, through `via` if this server is not in it. Joining twice is fine.
    pub async fn join(
        &self,
        _actor: &Actor,
        _room: &RoomId,
        _via: Via,
        _reason: Option<String>,
    ) -> Result<()> {
        Err(Error::Retry)
    }

    /// Leaves, rejects an invite or takes back a knock.
    pub async fn leave(&self, _actor: &Actor, _room: &RoomId, _reason: Option<String>) -> Result<()> {
        Err(Error::Retry)
    }

    /// Asks to be invited.
    pub async fn knock(
        &self,
        _actor: &Actor,
        _room: &RoomId,
        _via: Via,
        _reason: Option<String>,
    ) -> Result<()> {
        Err(Error::Retry)
    }

    /// Invites, kicks, bans or unbans `target`.
    pub async fn change(
        &self,
        _actor: &Actor,
        _room: &RoomId,
        _target: &UserId,
        _change: Change,
        _reason: Option<String>,
    ) -> Result<()> {
        Err(Error::Retry)
    }

    /// Takes a left room out of the user's lists; refused while the user is in it (`M_UNKNOWN` by the spec).
    pub async fn forget(&self, _user: &UserId, _room: &RoomId) -> Result<()> {
        Err(Error::Retry)
    }

    /// Announces a changed profile in the rooms the user is in: starts the work and answers at once.
    pub fn announce_profile(&self, _user: OwnedUserId) {}
}
