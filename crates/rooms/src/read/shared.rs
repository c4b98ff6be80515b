//! Whether two users meet anywhere, and whom one may find.

use std::collections::{BTreeMap, BTreeSet};

use chappe_store::{EventNum, Membership, RoomNid};
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use crate::{Profile, Result, Rooms};

/// Rooms looked at for people at most.
const ROOMS: usize = 500;
/// People found at most.
const PEOPLE: usize = 20_000;

impl Rooms {
    /// The rooms that the local user `local` and `other` are both joined to.
    pub async fn shared_rooms(&self, local: &UserId, other: &UserId) -> Result<Vec<OwnedRoomId>> {
        let reader = self.0.store.read();
        let mut shared = Vec::new();
        for (nid, own) in reader.user_rooms(local).await? {
            if own.value.membership == Membership::Join
                && reader.membership(nid, other).await?.is_some_and(|(theirs, _)| theirs == Membership::Join)
            {
                shared.push(reader.room_id(nid).await?);
            }
        }
        Ok(shared)
    }

    /// Everybody whom the local user `local` meets in rooms or in rooms of the public directory. Users of other servers
    /// come with the name they have there; those of this server have a profile of their own.
    pub async fn people_around(&self, local: &UserId) -> Result<BTreeMap<OwnedUserId, Option<Profile>>> {
        let reader = self.0.store.read();
        let own = reader.user_rooms(local).await?.into_iter();
        let own = own.filter(|(_, at)| at.value.membership == Membership::Join).map(|(nid, _)| nid);
        let rooms: BTreeSet<RoomNid> = own.chain(reader.published_rooms().await?).collect();
        drop(reader);
        let mut found: BTreeMap<OwnedUserId, Option<Profile>> = BTreeMap::new();
        for nid in rooms.into_iter().take(ROOMS) {
            let view = self.view_of(nid).await?;
            let members = view.reader.members(nid, Membership::Join).await?;
            let (here, elsewhere): (Vec<_>, Vec<_>) =
                members.into_iter().partition(|(user, _)| user.server_name() == self.server());
            found.extend(here.into_iter().map(|(user, _)| (user, None)));
            let new: Vec<(OwnedUserId, EventNum)> =
                elsewhere.into_iter().filter(|(user, _)| !found.contains_key(user)).take(PEOPLE).collect();
            let nums: Vec<EventNum> = new.iter().map(|(_, num)| *num).collect();
            let profiles = view.load(&nums).await?.into_iter().map(|event| event.pdu.content_as());
            found.extend(new.into_iter().map(|(user, _)| user).zip(profiles));
            if found.len() >= PEOPLE {
                break;
            }
        }
        Ok(found)
    }

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
