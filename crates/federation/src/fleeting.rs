//! Where typing and presence of remote users go: a port, since who shows them is no affair of this crate.

use async_trait::async_trait;
use ruma::{RoomId, UserId, api::federation::transactions::edu::PresenceUpdate};

/// Shows local users what remote users do at the moment. The sending server was checked: the user is one of its own,
/// and for typing is in the room.
#[async_trait]
pub trait RemoteActivity: Send + Sync {
    /// A remote user types in a room, or has stopped.
    async fn typing(&self, room: &RoomId, user: &UserId, typing: bool);

    /// A remote user's presence.
    async fn presence(&self, update: PresenceUpdate);
}
