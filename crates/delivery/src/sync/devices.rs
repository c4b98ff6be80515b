//! Whose devices changed, for the users who share a room with the asking one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chappe_rooms::{Actor, Event, View};
use chappe_rules::visibility::membership;
use chappe_store::{
    At, EventNum, Membership, Position, RoomNid, StateRef,
    members::{RoomMembers, UserRoom},
    out_of_band::Listed,
    state::{KeyCourse, StateKey},
};
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState, presence::PresenceState};

use super::{
    DeviceLists, SyncRequest,
    delta::{Candidate, Work},
    joined::is_member,
    state::state_seen,
    timeline::Slice,
    touched,
};
use crate::{Delivery, Error, SyncToken, signal::Look, tail::Tail};

/// Changes of device lists read at once.
pub(crate) const CHANGES: usize = 5_000;
/// Users of whom it is asked at once whether they share a room: each time, the members of rooms may be read.
const TOGETHER: usize = 100_000;
/// Memberships asked for at once.
const KEYS: usize = 4_096;
/// Profile changes followed back between two answers; with more, the keys are fetched once too often.
const STEPS: usize = 20;

impl Delivery {
    /// Whose devices changed between two tokens (the second none: up to now), and with whom the user came to share
    /// rooms or ceased to. What happened after the second token may be in there too, where it cannot be told apart.
    pub async fn device_lists(
        &self,
        user: &UserId,
        from: SyncToken,
        to: Option<SyncToken>,
    ) -> Result<DeviceLists, Error> {
        if from.position > *self.0.store.visible().borrow()
            || to.is_some_and(|to| to.position < from.position)
        {
            return Err(Error::BadToken);
        }
        let signal = self.0.wake.attach(user).await?;
        let _entered = signal.enter();
        let _turn = signal.turn(Some(from.position)).await;
        let reader = self.0.store.read();
        let now = reader.position();
        self.0.wake.reach(now).await?;
        let next = SyncToken { position: to.map_or(now, |to| to.position.min(now)), ..from };
        let mut look = signal.look(from.position, now, "".into());
        if let Look::At(touched) = &mut look {
            // Whether it was before the second token is not remembered.
            touched.device_lists |= next.position < now && !touched.devices.is_empty();
        }
        let request = SyncRequest {
            user: user.to_owned(),
            device: None,
            since: Some(from),
            filter: Arc::default(),
            full_state: false,
            state_after: false,
            presence: PresenceState::Offline,
            timeout: Duration::ZERO,
        };
        let work = Work {
            delivery: self,
            reader: &reader,
            request: &request,
            signal: &signal,
            actor: Actor::user(user),
            seen: Some(from),
            next,
            look,
        };
        let candidates = work.candidates(&BTreeSet::new()).await?;
        let rooms = candidates.iter().map(|candidate| candidate.nid).collect();
        let moved = work.moved(&candidates, &rooms, &BTreeSet::new()).await?;
        work.device_lists(&work.joined_rooms(), moved).await
    }
}

impl Work<'_> {
    /// Whose devices changed since, and with whom rooms are newly shared or no longer.
    pub(super) async fn device_lists(
        &self,
        rooms: &BTreeSet<RoomNid>,
        moved: Moved,
    ) -> Result<DeviceLists, Error> {
        let Some(seen) = self.seen.map(|seen| seen.position) else { return Ok(DeviceLists::default()) };
        let mut updated = self.updated(rooms, seen).await?;
        let Moved { came, mut went } = moved;
        went.remove(&self.request.user);
        let sharing = self.sharing(rooms, went.iter().collect()).await?;
        updated.extend(came);
        went.retain(|user| !sharing.contains(user));
        let changed = updated.into_iter().filter(|user| !went.contains(user)).collect();
        Ok(DeviceLists { changed, left: went.into_iter().collect() })
    }

    /// Those among the user and whoever shares one of the rooms whose devices or keys changed since, or were signed by
    /// the user: all of them.
    async fn updated(
        &self,
        rooms: &BTreeSet<RoomNid>,
        seen: Position,
    ) -> Result<BTreeSet<OwnedUserId>, Error> {
        let mut updated = BTreeSet::new();
        if touched(&self.look, |touched| touched.own_devices || touched.device_lists) {
            updated = self.own_updates(rooms, seen).await?;
        }
        updated.extend(match &self.look {
            Look::At(touched) if !touched.device_lists => self.still_met(rooms, &touched.devices).await?,
            _ => self.changed_since(rooms, seen).await?,
        });
        Ok(updated)
    }

    /// The user if their devices changed since, and those whose keys they signed.
    async fn own_updates(
        &self,
        rooms: &BTreeSet<RoomNid>,
        seen: Position,
    ) -> Result<BTreeSet<OwnedUserId>, Error> {
        let (accounts, reader, up_to) = (&self.delivery.0.accounts, self.reader, self.next.position);
        let own = &self.request.user;
        let signed = accounts.signature_changes(reader, own, seen, up_to).await?;
        let mut updated = self.sharing(rooms, signed.iter().collect()).await?;
        let last = accounts.device_list_change(reader, own).await?;
        updated.extend(last.filter(|last| last.is_between(seen, up_to)).map(|last| last.user));
        Ok(updated)
    }

    /// Those of some others, each with a room in which they were when their devices changed, who are in any of the user's
    /// rooms: as a rule they are in that one still.
    async fn still_met(
        &self,
        rooms: &BTreeSet<RoomNid>,
        met: &BTreeMap<OwnedUserId, RoomNid>,
    ) -> Result<BTreeSet<OwnedUserId>, Error> {
        let (mut found, mut others) = (BTreeSet::new(), BTreeSet::new());
        let met = met.iter().filter(|(user, _)| **user != self.request.user);
        let keys: Vec<_> = met.map(|(user, nid)| (*nid, Membership::Join, user.clone())).collect();
        if keys.is_empty() {
            return Ok(found);
        }
        let nums = self.reader.get_many::<RoomMembers>(&keys).await?;
        for ((nid, _, user), num) in keys.into_iter().zip(nums) {
            let list = if num.is_some() && rooms.contains(&nid) { &mut found } else { &mut others };
            list.insert(user);
        }
        found.extend(self.sharing(rooms, others.iter().collect()).await?);
        Ok(found)
    }

    /// Those of all others whose devices changed since who are in any of the rooms.
    async fn changed_since(
        &self,
        rooms: &BTreeSet<RoomNid>,
        seen: Position,
    ) -> Result<BTreeSet<OwnedUserId>, Error> {
        let (accounts, up_to) = (&self.delivery.0.accounts, self.next.position);
        let (mut found, mut others) = (BTreeSet::new(), BTreeSet::<OwnedUserId>::new());
        let mut behind = None;
        loop {
            let page = accounts.device_list_changes(self.reader, seen, behind.as_ref(), CHANGES).await?;
            let is_last = page.len() < CHANGES;
            behind = page.last().cloned();
            let inside = page.into_iter().filter(|one| one.is_between(seen, up_to));
            others.extend(inside.map(|one| one.user).filter(|user| *user != self.request.user));
            if is_last || others.len() >= TOGETHER {
                found.extend(self.sharing(rooms, others.iter().collect()).await?);
                others.clear();
            }
            if is_last {
                return Ok(found);
            }
        }
    }

    /// Those of some users who are in any of the rooms.
    pub(super) async fn sharing(
        &self,
        rooms: &BTreeSet<RoomNid>,
        users: BTreeSet<&OwnedUserId>,
    ) -> Result<BTreeSet<OwnedUserId>, Error> {
        let nids: Vec<RoomNid> = rooms.iter().copied().collect();
        let mut missing: BTreeSet<OwnedUserId> = users.into_iter().cloned().collect();
        if missing.len().saturating_mul(nids.len()) <= KEYS {
            return self.members_among(&nids, &missing).await;
        }
        let mut sharing = BTreeSet::new();
        let heads = self.reader.room_heads(&nids).await?;
        for (nid, head) in nids.iter().zip(heads) {
            if missing.is_empty() {
                break;
            }
            // Whichever is less: to ask for each of those who are not found yet, or to read who is in the room.
            let found = if usize::try_from(head.joined).is_ok_and(|joined| joined < missing.len()) {
                let members = self.reader.members(*nid, Membership::Join).await?.into_iter();
                members.map(|(user, _)| user).filter(|user| missing.contains(user)).collect()
            } else {
                self.members_among(&[*nid], &missing).await?
            };
            missing.retain(|user| !found.contains(user));
            sharing.extend(found);
        }
        Ok(sharing)
    }

    /// Those of some users who are in any of the rooms, asked for one by one.
    async fn members_among(
        &self,
        rooms: &[RoomNid],
        users: &BTreeSet<OwnedUserId>,
    ) -> Result<BTreeSet<OwnedUserId>, Error> {
        let users: Vec<&OwnedUserId> = users.iter().collect();
        let mut found = BTreeSet::new();
        if rooms.is_empty() {
            return Ok(found);
        }
        for some in users.chunks((KEYS / rooms.len()).max(1)) {
            let places = some.iter().flat_map(|user| rooms.iter().map(move |nid| (*nid, *user)));
            let keys: Vec<_> = places.map(|(nid, user)| (nid, Membership::Join, user.clone())).collect();
            let nums = self.reader.get_many::<RoomMembers>(&keys).await?;
            found.extend(keys.into_iter().zip(nums).filter(|(_, num)| num.is_some()).map(|(key, _)| key.2));
        }
        Ok(found)
    }

    /// Who came into the user's rooms or went, the user themselves included; `rooms` are those in which members did,
    /// and who is in one of the `hidden` ones is told with the room.
    pub(super) async fn moved(
        &self,
        candidates: &[Candidate],
        rooms: &BTreeSet<RoomNid>,
        hidden: &BTreeSet<RoomNid>,
    ) -> Result<Moved, Error> {
        let Some(seen) = self.seen.map(|seen| seen.position) else { return Ok(Moved::default()) };
        let (mut moved, over) = (Moved::default(), self.taken_back(seen).await?);
        for candidate in candidates.iter().chain(&over) {
            if candidate.own.position > seen || rooms.contains(&candidate.nid) {
                let is_hidden = hidden.contains(&candidate.nid);
                self.moved_in(candidate, seen, is_hidden, &mut moved).await?;
            }
        }
        Ok(moved)
    }

    /// Whether members may have come or gone in a room since: for sure not where its newest events say so.
    pub(super) fn may_have_moved(&self, tail: &Tail) -> bool {
        let Some(seen) = self.seen.map(|seen| seen.position) else { return false };
        // If its members came, no event tells.
        let Some(news) = tail.after(seen).filter(|_| tail.head.whole_at() <= seen) else { return true };
        let mut at = None;
        for event in news {
            if is_member(event) || at.is_some_and(|at| at != event.meta.before) {
                return true;
            }
            at = Some(event.meta.after);
        }
        // Something may have happened that is no event: states were resolved.
        at.map_or(tail.head.position > seen, |at| at != tail.head.state)
    }

    /// Rooms of this server in which nothing is left of the user's membership since.
    async fn taken_back(&self, seen: Position) -> Result<Vec<Candidate>, Error> {
        let mut found = Vec::new();
        if !touched(&self.look, |touched| touched.out_of_band) {
            return Ok(found);
        }
        for (room, at) in self.reader.out_of_band_list(&self.request.user).await? {
            let At { position, value: Listed { number, .. } } = at;
            let Some(nid) = number.filter(|_| position > seen) else { continue };
            // Of a room that was removed it is not known any more who was in it.
            if self.reader.room_nid(&room).await? == Some(nid) {
                let value = UserRoom { membership: Membership::Leave, num: EventNum::NONE };
                found.push(Candidate { nid, own: At { position, value } });
            }
        }
        Ok(found)
    }

    /// Whose membership of one room changed since, in a way that bears on who shares it with the user.
    async fn moved_in(
        &self,
        candidate: &Candidate,
        seen: Position,
        is_hidden: bool,
        moved: &mut Moved,
    ) -> Result<(), Error> {
        let place = self.place(candidate).await?;
        let view = &place.view;
        let was_in = self.known(&place).await?.is_some();
        let is_in = candidate.own.value.membership == Membership::Join;
        if !was_in && !is_in {
            return Ok(());
        }
        // The members of a room that was joined without them are as new to the user as those of one that came in whole.
        let grown = was_in && is_in && view.head.whole_at() > seen;
        let mut changes = Vec::new();
        if was_in {
            let slice = Slice { limited: true, ..Slice::default() };
            let to = self.next.position;
            let looks_back = to < self.reader.position() && candidate.own.position <= to;
            let end = if looks_back { state_seen(view, to, &slice).await? } else { view.head.state };
            changes = moves_between(view, (state_seen(view, seen, &slice).await?, end), grown).await?;
        }
        let stayed = was_in && is_in && !grown && !changes.iter().any(|one| one.user == self.request.user);
        if is_hidden {
            moved.went.extend(changes.into_iter().filter(|one| !one.is_in).map(|one| one.user));
            return Ok(());
        }
        let all = if stayed { Vec::new() } else { view.reader.members(view.nid, Membership::Join).await? };
        if is_in {
            moved.came.extend(all.into_iter().map(|(user, _)| user));
            for one in changes {
                let list = if one.is_in { &mut moved.came } else { &mut moved.went };
                list.insert(one.user);
            }
            return Ok(());
        }
        // They shared the room with those who were in it then, whatever happened there since.
        let mut then: BTreeSet<OwnedUserId> = all.into_iter().map(|(user, _)| user).collect();
        for one in changes {
            if one.was_in {
                then.insert(one.user);
            } else {
                then.remove(&one.user);
            }
        }
        moved.went.extend(then);
        Ok(())
    }
}

/// Somebody came into a room, went, went and came back, or came and went again.
struct Move {
    user: OwnedUserId,
    was_in: bool,
    is_in: bool,
}

/// Who moved between two states. Where the members of the room came meanwhile, those of whom nothing was known before are
/// left out, so that there are not as many to look at as are in the room.
async fn moves_between(
    view: &View<'_>,
    (from, to): (StateRef, StateRef),
    grown: bool,
) -> Result<Vec<Move>, Error> {
    if from == to {
        return Ok(Vec::new());
    }
    let mut courses = view.reader.state_course(view.nid, from, to).await?;
    courses.retain(|course| !grown || course.old != EventNum::NONE || !course.between.is_empty());
    let ids: Vec<_> = courses.iter().map(|course| course.key).collect();
    let keys = view.reader.state_keys(view.nid, &ids).await?;
    let members = keys.into_iter().zip(courses).filter(|(key, _)| key.event_type() == "m.room.member");
    let members: Vec<(OwnedUserId, KeyCourse)> =
        members.filter_map(|(key, course)| Some((UserId::parse(&key.state_key).ok()?, course))).collect();
    let all = |course: &KeyCourse| [&[course.old, course.new][..], &course.between[..]].concat();
    let nums: BTreeSet<EventNum> = members.iter().flat_map(|(_, course)| all(course)).collect();
    let nums: Vec<EventNum> = nums.into_iter().filter_map(EventNum::some).collect();
    let events = if nums.is_empty() { Vec::new() } else { view.load(&nums).await? };
    let joins: BTreeSet<EventNum> =
        events.iter().filter(|event| is_join(event)).map(|event| event.num).collect();
    let mut found = Vec::new();
    for (user, course) in members {
        let (was_in, is_in) = (joins.contains(&course.old), joins.contains(&course.new));
        // The timeline may have told of who came, and not that it was taken back.
        let moved = was_in != is_in || course.between.iter().any(|num| joins.contains(num) != is_in);
        if moved || (was_in && was_away(view, &user, &course).await?) {
            found.push(Move { user, was_in, is_in });
        }
    }
    Ok(found)
}

/// Whether somebody who was in the room and is has been out of it in between: goes back from profile change to
/// profile change.
async fn was_away(view: &View<'_>, user: &UserId, course: &KeyCourse) -> Result<bool, Error> {
    if course.old == course.new {
        return Ok(false);
    }
    let key = [StateKey::new("m.room.member", user)];
    let mut num = course.new;
    for _ in 0..STEPS {
        let before = view.reader.event_meta(view.nid, num).await?.before;
        let Some(before) = view.reader.state_at(view.nid, before, &key).await?.pop().flatten() else {
            return Ok(true);
        };
        if before == course.old {
            return Ok(false);
        }
        if !is_join(&view.load_one(before).await?) {
            return Ok(true);
        }
        num = before;
    }
    Ok(true)
}

fn is_join(event: &Event) -> bool {
    membership(Some(&event.pdu)) == MembershipState::Join
}

/// Who came into the user's rooms and who went.
#[derive(Default)]
pub(super) struct Moved {
    pub(super) came: BTreeSet<OwnedUserId>,
    pub(super) went: BTreeSet<OwnedUserId>,
}
