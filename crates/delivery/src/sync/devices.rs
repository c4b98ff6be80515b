//! Whose devices changed, for the users who share a room with the asking one.

use std::collections::{BTreeMap, BTreeSet};

use chappe_rooms::View;
use chappe_rules::visibility::membership;
use chappe_store::{EventNum, Membership, Position, RoomNid, StateRef, members::RoomMembers};
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};

use super::{
    DeviceLists,
    delta::{Candidate, Work},
    touched,
};
use crate::Error;

/// Changes of device lists looked at in one answer.
const CHANGES: usize = 50_000;

impl Work<'_> {
    /// Whose devices changed since, and with whom rooms are newly shared or no longer.
    pub(super) async fn device_lists(
        &self,
        rooms: &BTreeSet<RoomNid>,
        moved: Moved,
    ) -> Result<DeviceLists, Error> {
        let Some(seen) = self.seen.map(|seen| seen.position) else { return Ok(DeviceLists::default()) };
        let look_at_changes = touched(&self.look, |touched| touched.device_lists);
        let mut changed = BTreeSet::new();
        if look_at_changes {
            let all = self
                .delivery
                .0
                .accounts
                .device_list_changes(self.reader, seen, self.next.position, CHANGES)
                .await?;
            for change in all {
                if change.user == self.request.user || self.shares(rooms, &change.user).await? {
                    changed.insert(change.user);
                }
            }
        }
        changed.extend(moved.came);
        changed.remove(&self.request.user);
        let own = look_at_changes && self.own_changed(seen).await?;
        changed.extend(own.then(|| self.request.user.clone()));
        let mut left = Vec::new();
        for user in moved.went {
            if user != self.request.user && !self.shares(rooms, &user).await? {
                changed.remove(&user);
                left.push(user);
            }
        }
        Ok(DeviceLists { changed: changed.into_iter().collect(), left })
    }

    async fn own_changed(&self, seen: Position) -> Result<bool, Error> {
        let last = self.delivery.0.accounts.device_list_change(self.reader, &self.request.user).await?;
        Ok(last.is_some_and(|last| last.position > seen))
    }

    async fn shares(&self, rooms: &BTreeSet<RoomNid>, user: &UserId) -> Result<bool, Error> {
        let keys: Vec<_> = rooms.iter().map(|nid| (*nid, Membership::Join, user.to_owned())).collect();
        Ok(self.reader.get_many::<RoomMembers>(&keys).await?.iter().any(Option::is_some))
    }

    /// Who came into the user's rooms or went, the user themselves included; `rooms` are those in which members did.
    pub(super) async fn moved(
        &self,
        candidates: &[Candidate],
        rooms: &BTreeSet<RoomNid>,
    ) -> Result<Moved, Error> {
        let Some(seen) = self.seen.map(|seen| seen.position) else { return Ok(Moved::default()) };
        let mut moved = Moved::default();
        for candidate in candidates {
            let own_moved = candidate.own.position > seen;
            if own_moved {
                let users = self.reader.members(candidate.nid, Membership::Join).await?;
                let users = users.into_iter().map(|(user, _)| user);
                match candidate.own.value.membership {
                    Membership::Join => moved.came.extend(users),
                    Membership::Leave | Membership::Ban => moved.went.extend(users),
                    Membership::Invite | Membership::Knock => {}
                }
            } else if rooms.contains(&candidate.nid) {
                self.moved_in(candidate, seen, &mut moved).await?;
            }
        }
        Ok(moved)
    }

    /// Whose membership of one room changed since.
    async fn moved_in(&self, candidate: &Candidate, seen: Position, moved: &mut Moved) -> Result<(), Error> {
        let view = self.delivery.0.rooms.view_at(self.reader.clone(), candidate.nid).await?;
        let ordinal = self.reader.ordinal_after(candidate.nid, seen).await?;
        let rows = self.reader.timeline_forward(candidate.nid, ordinal, 1).await?;
        let Some(first) = rows.first() else { return Ok(()) };
        let from = self.reader.event_meta(candidate.nid, first.num).await?.before;
        for (user, was, is) in members_between(&view, from, view.head.state).await? {
            match (was == MembershipState::Join, is == MembershipState::Join) {
                (false, true) => {
                    moved.came.insert(user);
                }
                (true, false) => {
                    moved.went.insert(user);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

async fn members_between(
    view: &View<'_>,
    from: StateRef,
    to: StateRef,
) -> Result<Vec<(OwnedUserId, MembershipState, MembershipState)>, Error> {
    if from == to {
        return Ok(Vec::new());
    }
    let changes = view.reader.state_diff(view.nid, from, to).await?;
    let ids: Vec<_> = changes.iter().map(|change| change.key).collect();
    let keys = view.reader.state_keys(view.nid, &ids).await?;
    let mut memberships = BTreeMap::new();
    for (key, change) in keys.into_iter().zip(changes) {
        let Ok(user) = UserId::parse(&key.state_key) else { continue };
        if key.event_type() == "m.room.member" {
            memberships.insert(user, (said(view, change.old).await?, said(view, change.new).await?));
        }
    }
    Ok(memberships.into_iter().map(|(user, (was, is))| (user, was, is)).collect())
}

async fn said(view: &View<'_>, num: EventNum) -> Result<MembershipState, Error> {
    match num.some() {
        Some(num) => Ok(membership(Some(&view.load_one(num).await?.pdu))),
        None => Ok(MembershipState::Leave),
    }
}

/// Who came into the user's rooms and who went.
#[derive(Default)]
pub(super) struct Moved {
    pub(super) came: BTreeSet<OwnedUserId>,
    pub(super) went: BTreeSet<OwnedUserId>,
}
