//! Which rooms have to be looked at: what changed, never all of them.

use std::collections::BTreeSet;

use chappe_store::{
    At, EventNum, Membership, RoomNid,
    members::{UserRoom, UserRooms},
};

use super::delta::{Candidate, Work};
use crate::{Error, signal::Look};

impl Work<'_> {
    /// The rooms in which something may be new, and those named in `also` that the user has a membership of.
    pub(super) async fn candidates(&self, also: &BTreeSet<RoomNid>) -> Result<Vec<Candidate>, Error> {
        let mut candidates = match &self.look {
            Look::Everywhere => self.everywhere(also).await?,
            Look::At(touched) => {
                let rooms: BTreeSet<RoomNid> = touched.rooms.union(also).copied().collect();
                self.some(&rooms).await?
            }
        };
        candidates.retain(|candidate| self.concerns(candidate, also));
        let mut kept = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let gone = matches!(candidate.own.value.membership, Membership::Leave | Membership::Ban);
            // That the user left is told even if the room is forgotten: it was, maybe, on another device.
            let news = self.seen.is_some_and(|seen| candidate.own.position > seen.position);
            if gone && !news && self.reader.forgotten(&self.request.user, candidate.nid).await?.is_some() {
                continue;
            }
            kept.push(candidate);
        }
        Ok(kept)
    }

    async fn everywhere(&self, also: &BTreeSet<RoomNid>) -> Result<Vec<Candidate>, Error> {
        let rooms = self.reader.user_rooms_and_forgotten(&self.request.user).await?;
        if let Some(seen) = self.seen.filter(|_| !self.request.full_state) {
            let steady = rooms
                .iter()
                .filter(|(_, own)| own.value.membership == Membership::Join && own.position <= seen.position);
            let steady: Vec<RoomNid> = steady.map(|(nid, _)| *nid).collect();
            self.delivery.0.wake.recall(self.reader, &steady, seen.position).await?;
        }
        let candidates = rooms.into_iter().map(|(nid, own)| Candidate { nid, own });
        Ok(candidates
            .filter(|candidate| self.may_be_new(candidate) || also.contains(&candidate.nid))
            .collect())
    }

    fn may_be_new(&self, Candidate { nid, own }: &Candidate) -> bool {
        let Some(seen) = self.seen else { return true };
        let joined = own.value.membership == Membership::Join;
        own.position > seen.position
            || (joined && (self.request.full_state || self.delivery.0.wake.room_changed(*nid, seen.position)))
    }

    /// Rooms the user has been in all the time are known from memory.
    async fn some(&self, rooms: &BTreeSet<RoomNid>) -> Result<Vec<Candidate>, Error> {
        let (mut candidates, mut unsure) = (Vec::new(), BTreeSet::new());
        for nid in rooms {
            let steady = self.seen.and_then(|seen| self.signal.joined_since(*nid, seen.position));
            match steady {
                Some(position) => {
                    let value = UserRoom { membership: Membership::Join, num: EventNum::NONE };
                    candidates.push(Candidate { nid: *nid, own: At { position, value } });
                }
                None => {
                    unsure.insert(*nid);
                }
            }
        }
        candidates.extend(self.read(&unsure).await?);
        Ok(candidates)
    }

    async fn read(&self, rooms: &BTreeSet<RoomNid>) -> Result<Vec<Candidate>, Error> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = rooms.iter().map(|nid| (self.request.user.clone(), *nid)).collect();
        let found: Vec<Option<At<UserRoom>>> = self.reader.get_many::<UserRooms>(&keys).await?;
        let found = rooms.iter().zip(found);
        Ok(found.filter_map(|(nid, own)| Some(Candidate { nid: *nid, own: own? })).collect())
    }

    /// Rooms the user is not in matter when that is news, or when they are asked for.
    fn concerns(&self, Candidate { own, nid }: &Candidate, also: &BTreeSet<RoomNid>) -> bool {
        let news = self.seen.is_none_or(|seen| own.position > seen.position);
        match own.value.membership {
            Membership::Join => true,
            Membership::Invite | Membership::Knock => news || self.request.full_state,
            Membership::Leave | Membership::Ban if self.seen.is_none() => {
                self.request.filter.room.include_leave
            }
            Membership::Leave | Membership::Ban => {
                news || (also.contains(nid) && self.request.filter.room.include_leave)
            }
        }
    }
}
