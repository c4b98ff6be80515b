//! What becomes of a closed account's memberships.

use chappe_store::Membership;
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use crate::{Actor, Result, Rooms};

impl Rooms {
    /// Leaves every room of a user whose account was closed, and rejects its invites: starts the work and answers at once.
    pub fn leave_all(&self, user: OwnedUserId) {
        let rooms = self.clone();
        drop(self.0.world.spawn("leave-all", async move {
            let actor = Actor::user(&user);
            let all = match rooms.all_of(&user).await {
                Ok(all) => all,
                Err(error) => return tracing::warn!(%user, %error, "a closed account's rooms were not left"),
            };
            for room in all {
                if let Err(error) = rooms.leave(&actor, &room, None).await {
                    tracing::warn!(%user, %room, %error, "a closed account's room was not left");
                }
            }
        }));
    }

    /// Rooms with a membership that can be left.
    async fn all_of(&self, user: &UserId) -> Result<Vec<OwnedRoomId>> {
        let reader = self.0.store.read();
        let mut rooms = Vec::new();
        for (nid, at) in reader.user_rooms(user).await? {
            if !matches!(at.value.membership, Membership::Leave | Membership::Ban) {
                rooms.push(reader.room_id(nid).await?);
            }
        }
        rooms.extend(reader.out_of_bands(user).await?.into_iter().map(|(room, _)| room));
        Ok(rooms)
    }
}
