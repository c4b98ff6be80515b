//! A user's rooms in the order of their last activity, kept in memory while the user is attached.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_store::{
    At, EventNum, Membership, Position, Reader, RoomNid,
    members::{UserRoom, UserRooms},
    rooms::RoomIds,
};
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use super::super::joined::membership_at;
use super::connection::RoomKey;
use crate::{
    Delivery, Error,
    signal::{Look, Signal, Touched},
};

/// A room of the user's.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(super) key: RoomKey,
    /// The user's membership and the commit of its last change.
    pub(super) own: At<UserRoom>,
    /// The last thing that happened there, as far as it concerns the user.
    pub(super) last: Position,
    /// Who invited the user or ended their stay; only of invites and leaves.
    pub(super) by: Option<OwnedUserId>,
    /// Whether the user was in the room and somebody else put an end to it.
    pub(super) was_removed: bool,
    /// The number of a room in which the user had a part here before: under it a device may know the room.
    pub(super) was: Option<RoomNid>,
    /// The row of the same room that counts instead of this one, unless that is not shown.
    pub(super) later: Option<Box<Row>>,
}

impl Row {
    pub(super) fn membership(&self) -> Membership {
        self.own.value.membership
    }

    /// Whether the user is no longer in the room.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.membership(), Membership::Leave | Membership::Ban)
    }
}

/// All rooms of a user that are not forgotten, the last active first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    as_of: Position,
    pub(super) rows: Vec<Row>,
}

impl Shelf {
    fn sort(&mut self) {
        self.rows.sort_by(|a, b| (Reverse(a.last), &a.key).cmp(&(Reverse(b.last), &b.key)));
    }
}

/// The sender of an event, read out of its JSON.
#[derive(Deserialize)]
struct Sent {
    sender: OwnedUserId,
}

impl Delivery {
    /// The user's rooms as of a snapshot that the follower has reached. After the first time only what was touched is
    /// looked at.
    pub(super) async fn shelf(&self, reader: &Reader<'_>, signal: &Signal) -> Result<Arc<Shelf>, Error> {
        let now = reader.position();
        let kept = signal.shelf.lock().clone();
        let kept = kept.filter(|shelf| shelf.as_of <= now);
        let shelf = match kept {
            None => self.new_shelf(reader, signal).await?,
            Some(kept) => match signal.look(kept.as_of, now, "".into()) {
                Look::Everywhere => self.new_shelf(reader, signal).await?,
                Look::At(touched) if touched.rooms.is_empty() && !touched.out_of_band => return Ok(kept),
                Look::At(touched) => {
                    let mut shelf = Shelf::clone(&kept);
                    self.update_shelf(reader, signal, &mut shelf, &touched).await?;
                    shelf
                }
            },
        };
        let shelf = Arc::new(Shelf { as_of: now, ..shelf });
        let mut kept = signal.shelf.lock();
        if kept.as_ref().is_none_or(|kept| kept.as_of <= now) {
            *kept = Some(shelf.clone());
        }
        Ok(shelf)
    }

    async fn new_shelf(&self, reader: &Reader<'_>, signal: &Signal) -> Result<Shelf, Error> {
        let mine = reader.user_rooms(&signal.user).await?;
        let mut shelf = Shelf { rows: self.rows(reader, &signal.user, mine).await?, ..Shelf::default() };
        shelf.rows.extend(elsewhere(reader, &signal.user).await?);
        mark_later(reader, &mut shelf.rows).await?;
        shelf.sort();
        Ok(shelf)
    }

    async fn update_shelf(
        &self,
        reader: &Reader<'_>,
        signal: &Signal,
        shelf: &mut Shelf,
        touched: &Touched,
    ) -> Result<(), Error> {
        for row in &mut shelf.rows {
            if let RoomKey::Here(nid) = row.key
                && row.membership() == Membership::Join
                && touched.rooms.contains(&nid)
            {
                row.last = row.last.max(self.0.wake.last_event_known(nid).unwrap_or_default());
            }
        }
        if !touched.memberships.is_empty() {
            let is_kept = |row: &Row| match row.key {
                RoomKey::Here(nid) => !touched.memberships.contains(&nid),
                RoomKey::Elsewhere(_) => true,
            };
            shelf.rows.retain(is_kept);
            let keys: Vec<_> = touched.memberships.iter().map(|nid| (signal.user.clone(), *nid)).collect();
            let found = reader.get_many::<UserRooms>(&keys).await?;
            let mut mine = Vec::new();
            for ((_, nid), own) in keys.into_iter().zip(found) {
                let Some(own) = own else { continue };
                if reader.forgotten(&signal.user, nid).await?.is_none() {
                    mine.push((nid, own));
                }
            }
            shelf.rows.extend(self.rows(reader, &signal.user, mine).await?);
        }
        if touched.out_of_band || !touched.memberships.is_empty() {
            shelf.rows.retain(|row| matches!(row.key, RoomKey::Here(_)));
            shelf.rows.extend(elsewhere(reader, &signal.user).await?);
            mark_later(reader, &mut shelf.rows).await?;
        }
        shelf.sort();
        Ok(())
    }

    /// Rows of rooms that this server knows: a few round trips, however many they are.
    async fn rows(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        mine: Vec<(RoomNid, At<UserRoom>)>,
    ) -> Result<Vec<Row>, Error> {
        let last = self.last_activity(reader, &mine).await?;
        let is_by_somebody = |own: &At<UserRoom>| {
            matches!(own.value.membership, Membership::Invite | Membership::Leave)
                && own.value.num != EventNum::NONE
        };
        let wanted: Vec<_> = mine
            .iter()
            .filter(|(_, own)| is_by_somebody(own))
            .map(|(nid, own)| (*nid, own.value.num))
            .collect();
        let pdus = reader.pdus_of(&wanted).await?;
        let by: BTreeMap<RoomNid, OwnedUserId> = (wanted.iter().zip(pdus))
            .filter_map(|((nid, _), pdu)| Some((*nid, serde_json::from_str::<Sent>(&pdu?.json).ok()?.sender)))
            .collect();
        let mut rows = Vec::with_capacity(mine.len());
        for ((nid, own), last) in mine.into_iter().zip(last) {
            let by = by.get(&nid).cloned();
            let removed = match own.value.membership {
                Membership::Ban => true,
                Membership::Leave => by.as_deref().is_some_and(|by| by != user),
                _ => false,
            };
            let was_removed = removed && self.was_in(reader, user, (nid, own.value.num)).await?;
            let key = RoomKey::Here(nid);
            rows.push(Row { key, own, last, by, was_removed, was: None, later: None });
        }
        Ok(rows)
    }

    /// Whether the user was joined just before an event.
    pub(super) async fn was_in(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        (nid, num): (RoomNid, EventNum),
    ) -> Result<bool, Error> {
        let view = self.0.rooms.view_at(reader.clone(), nid).await?;
        let before = reader.event_meta(nid, num).await?.before;
        Ok(membership_at(&view, before, user).await? == MembershipState::Join)
    }

    /// When something last happened in each room: from memory, and from the heads of rooms that were silent in this
    /// process's time.
    async fn last_activity(
        &self,
        reader: &Reader<'_>,
        mine: &[(RoomNid, At<UserRoom>)],
    ) -> Result<Vec<Position>, Error> {
        let joined = |own: &At<UserRoom>| own.value.membership == Membership::Join;
        let silent: BTreeSet<RoomNid> = mine
            .iter()
            .filter(|(nid, own)| joined(own) && self.0.wake.last_event_known(*nid).is_none())
            .map(|(nid, _)| *nid)
            .collect();
        let silent: Vec<RoomNid> = silent.into_iter().collect();
        let heads = reader.room_heads(&silent).await?;
        let heads: BTreeMap<RoomNid, Position> =
            silent.into_iter().zip(heads).map(|(nid, head)| (nid, head.position)).collect();
        Ok(mine
            .iter()
            .map(|(nid, own)| {
                let known = || self.0.wake.last_event_known(*nid).or_else(|| heads.get(nid).copied());
                let last = if joined(own) { known() } else { None };
                last.unwrap_or_default().max(own.position)
            })
            .collect())
    }
}

/// Invites and knocks in rooms that this server is not in.
async fn elsewhere(reader: &Reader<'_>, user: &UserId) -> Result<Vec<Row>, Error> {
    let list = reader.out_of_band_list(user).await?.into_iter();
    Ok(list
        .map(|(room, At { position: last, value: listed })| {
            let value = UserRoom { membership: listed.membership, num: EventNum::NONE };
            let own = At { position: last, value };
            let (key, by, was) = (RoomKey::Elsewhere(room), listed.by, listed.number);
            Row { key, own, last, by, was_removed: false, was, later: None }
        })
        .collect())
}

/// A room that the user has left here and was invited to elsewhere has two rows: notes at the one that is over that the
/// other came later.
async fn mark_later(reader: &Reader<'_>, rows: &mut [Row]) -> Result<(), Error> {
    let (mut here, mut outside) = (BTreeMap::new(), Vec::new());
    for (at, row) in rows.iter_mut().enumerate() {
        row.later = None;
        match &row.key {
            RoomKey::Here(nid) => {
                here.insert(*nid, at);
            }
            RoomKey::Elsewhere(room) => outside.push((at, room.clone())),
        }
    }
    let ids: Vec<OwnedRoomId> = outside.iter().map(|(_, room)| room.clone()).collect();
    let nids = reader.get_many::<RoomIds>(&ids).await?;
    for ((elsewhere, _), nid) in outside.into_iter().zip(nids) {
        let Some((nid, here)) = nid.and_then(|nid| Some((nid, *here.get(&nid)?))) else { continue };
        let came_later = rows[elsewhere].own.position > rows[here].own.position;
        let (first, last) = if came_later { (here, elsewhere) } else { (elsewhere, here) };
        if rows[first].is_over() {
            rows[elsewhere].was.get_or_insert(nid);
            rows[first].later = Some(Box::new(rows[last].clone()));
        }
    }
    Ok(())
}
