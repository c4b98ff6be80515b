//! Whether two users meet anywhere.

use chappe_store::Membership;
use ruma::UserId;

use crate::{Result, Rooms};

impl Rooms {
    /// Whether the local user `local` and `other` are joined to a room together.
    pub async fn share_a_room(&self, local: &UserId, other: &UserId) -> Result<bool> {
        let reader = self.0.store.read();
        for (nid, own) in reader.user_rooms(local).await? {
            if own.value.membership == Membership::Join
                && reader.membership(nid, other).await?.is_some_and(|(theirs, _)| theirs == Membership::Join)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
