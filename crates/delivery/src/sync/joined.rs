//! Rooms the user is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_rooms::{Bundle, Event, Form, Seen, View, passes, passes_room};
use chappe_rules::visibility::membership;
use chappe_store::{
    At, EventNum, Position, StateRef,
    members::UserRoom,
    receipts::{ReceiptKind, ReceiptRow},
    state::StateKey,
};
use ruma::{
    OwnedUserId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    JoinedRoom, Json, RoomPart, StatePart, Summary, Timeline,
    delta::{Personal, Work},
    filter::{self, Members},
    state::{self, Nums, Stretch},
    summary::may_be_renamed,
    timeline::{self, Slice, Span},
    touched,
};
use crate::{Error, tail::Tail, unread::Reading};

const MEMBER: &str = "m.room.member";
/// Receipts of others that whoever is new in a room is told of, the latest: of a room of tens of thousands all would be
/// megabytes, most of them for events far above the timeline.
pub(crate) const RECEIPTS: usize = 500;

/// Event, kind and user of receipts.
type ReceiptPlace = (String, &'static str, OwnedUserId);

/// A room of the user's, as it is now.
pub(super) struct Place<'a> {
    pub(super) view: View<'a>,
    pub(super) tail: Arc<Tail>,
    pub(super) own: At<UserRoom>,
}

/// What is new in a joined room.
pub(super) struct News {
    /// Nothing to tell if there is none.
    pub(super) room: Option<JoinedRoom>,
    pub(super) stirred: Stirred,
}

/// What is known of the members of a joined room once its news are put together.
#[derive(Clone, Copy, Default)]
pub(super) struct Stirred {
    /// Whether some may have come or gone.
    pub(super) members_changed: bool,
    /// Whether the device is told of the room once all of them are here, and not before.
    pub(super) is_hidden: bool,
}

/// A timeline with what it needs for the state.
pub(super) struct Told {
    pub(super) slice: Slice,
    pub(super) nums: Nums,
}

impl Work<'_> {
    /// What is new in a joined room; `None` when nothing is.
    pub(super) async fn joined(&self, place: &Place<'_>, personal: &Personal) -> Result<News, Error> {
        let view = &place.view;
        let lazy = Members::of(&self.request.filter.room) != Members::All;
        // Members are still to come: who wants them all is told of the room when they are here.
        if view.head.partial && !lazy {
            let stirred = Stirred { members_changed: self.may_have_moved(&place.tail), is_hidden: true };
            return Ok(News { room: None, stirred });
        }
        let known = self.known(place).await?;
        let grown = known.is_some_and(|seen| view.head.whole_at() > seen);
        let known = known.filter(|_| lazy || !grown);
        let span = Span { after: known, before: view.head.next_live };
        let wanted = self.wanted(&personal.settings.ignored);
        self.recall_stay(place).await?;
        let mut slice = timeline::slice((view, &place.tail), &span, &wanted).await?;
        // What the device may have of an earlier stay does not join on to this.
        slice.limited |= known.is_none() && self.seen.is_some();
        let from = match known {
            Some(seen) if !self.request.full_state && !grown => {
                Some(state::state_seen(view, seen, &slice).await?)
            }
            _ => None,
        };
        let stretch = Stretch { from, end: view.head.state, lazy, slice: &slice };
        let (nums, members_changed) = self.state(place, &stretch, known).await?;
        let members_changed = members_changed || grown;
        let fresh = known.is_none() || self.request.full_state;
        let is_due = fresh || members_changed || may_be_renamed(&nums, &slice);
        let summary = if is_due { self.summary(place).await? } else { Summary::default() };
        let moved = match known {
            Some(seen) if grown => state::members_since(view, seen, slice.limited).await?,
            _ => Nums::new(),
        };
        let nums = self.lazily(place, &stretch, (nums, moved), &summary, fresh).await?;
        let ephemeral = self.ephemeral(place, known, personal).await?;
        let account_data = self.room_data(&view.room_id, known, personal).await?;
        let sticky = self.sticky(place, known, &slice, personal).await?;
        let stirred = Stirred { members_changed, is_hidden: false };
        let silent = slice.events.is_empty() && !slice.limited && nums.is_empty() && sticky.is_empty();
        if silent && ephemeral.is_empty() && account_data.is_empty() && !fresh {
            return Ok(News { room: None, stirred });
        }
        let told = Told { slice, nums };
        let part = self.part(place, told, account_data).await?;
        let unread = self.delivery.unread(&self.reading(place, personal)).await?;
        Ok(News { room: Some(JoinedRoom { part, ephemeral, sticky, unread, summary }), stirred })
    }

    /// Sticky events that the device does not have and the timeline does not tell (MSC4354).
    async fn sticky(
        &self,
        place: &Place<'_>,
        known: Option<Position>,
        slice: &Slice,
        personal: &Personal,
    ) -> Result<Vec<Json>, Error> {
        let (view, after) = (&place.view, known.unwrap_or_default());
        if !self.delivery.0.wake.may_stick(view.nid, after) {
            return Ok(Vec::new());
        }
        let told: BTreeSet<EventNum> = slice.events.iter().map(|seen| seen.event.num).collect();
        let mut sticky = view.newest_sticky_after(&self.request.user, after).await?;
        sticky.retain(|one| {
            let ignored = personal.settings.ignored.contains(one.event.pdu.sender());
            !told.contains(&one.event.num) && !ignored
        });
        Ok(sticky.iter().map(|one| view.render_sticky(one)).collect::<Result<_, _>>()?)
    }

    pub(super) fn reading<'b>(&'b self, place: &'b Place<'_>, personal: &'b Personal) -> Reading<'b> {
        Reading {
            user: &self.request.user,
            view: &place.view,
            tail: &place.tail,
            settings: &personal.settings,
            signal: Some(self.signal),
        }
    }

    /// Up to where the device knows this room; `None` when it was not in it then.
    pub(super) async fn known(&self, place: &Place<'_>) -> Result<Option<Position>, Error> {
        let Some(seen) = self.seen.map(|seen| seen.position) else { return Ok(None) };
        if place.own.position <= seen {
            return Ok(Some(seen));
        }
        let view = &place.view;
        let at = if let Some(at) = view.reader.state_as_of(view.nid, seen).await? {
            at
        } else {
            let ordinal = view.reader.ordinal_after(view.nid, seen).await?;
            let rows = view.reader.timeline_back(view.nid, ordinal, 1).await?;
            let Some(last) = rows.first().filter(|row| row.ordinal > 0) else { return Ok(None) };
            view.reader.event_meta(view.nid, last.num).await?.after
        };
        let was = membership_at(view, at, &self.request.user).await?;
        Ok((was == MembershipState::Join).then_some(seen))
    }

    /// Since when the user is in a room, read once for all that comes while they stay.
    pub(super) async fn recall_stay(&self, place: &Place<'_>) -> Result<(), Error> {
        let (view, user) = (&place.view, &self.request.user);
        let as_of = (place.own.position, view.head.whole_at());
        let stay = match self.signal.stay(view.nid, as_of) {
            Some(stay) => stay,
            None => {
                let Some(stay) = view.stay(user).await? else { return Ok(()) };
                self.signal.remember_stay(view.nid, as_of, stay);
                stay
            }
        };
        view.knows(user, stay);
        Ok(())
    }

    /// The state part before lazy loading, and whether members came or went.
    pub(super) async fn state(
        &self,
        place: &Place<'_>,
        stretch: &Stretch<'_>,
        known: Option<Position>,
    ) -> Result<(Nums, bool), Error> {
        let part = if self.request.state_after {
            state::after(&place.view, stretch).await?
        } else {
            state::before(&place.view, stretch).await?
        };
        let in_timeline = stretch.slice.events.iter().any(|seen| is_member(&seen.event));
        Ok((part.nums, known.is_none() || part.members || in_timeline))
    }

    /// Leaves out the members that the device knows or does not need, but not those who `moved`.
    async fn lazily(
        &self,
        place: &Place<'_>,
        stretch: &Stretch<'_>,
        (mut nums, moved): (Nums, Nums),
        summary: &Summary,
        fresh: bool,
    ) -> Result<Nums, Error> {
        let how = Members::of(&self.request.filter.room);
        if how == Members::All {
            return Ok(nums);
        }
        let nid = place.view.nid;
        // Members that changed since and that the timeline does not tell are told all the same: they did in a gap, or states
        // were resolved.
        let keeps = stretch.from.is_some();
        nums.retain(|key, _| keeps || key.event_type() != MEMBER);
        nums.extend(moved);
        // Those who changed in a gap may be thousands: they are not noted, and told once more when they say something.
        let changed: Vec<(OwnedUserId, EventNum)> = (nums.iter())
            .filter(|(key, _)| !stretch.slice.limited && key.event_type() == MEMBER)
            .filter_map(|(key, num)| Some((UserId::parse(&key.state_key).ok()?, *num)))
            .collect();
        let mut needed: BTreeSet<OwnedUserId> =
            stretch.slice.events.iter().map(|seen| seen.event.pdu.sender().to_owned()).collect();
        needed.extend(summary.heroes.iter().flatten().cloned());
        if fresh {
            needed.insert(self.request.user.clone());
        }
        let before = !self.request.state_after && stretch.joins_on();
        let at = if before { stretch.start() } else { stretch.end };
        let mut members = state::members_at(&place.view, at, needed, stretch.slice).await?;
        if let Some(device) = &self.request.device {
            let sent = &self.delivery.0.members_sent;
            let user = &self.request.user;
            let seen = self.request.since.unwrap_or_default().position;
            if fresh {
                sent.forget(user, device, nid);
            } else if how == Members::Lazy {
                sent.unknown(user, device, nid, seen, &mut members);
            }
            let told =
                stretch.slice.events.iter().filter(|seen| is_member(&seen.event)).filter_map(|seen| {
                    Some((UserId::parse(seen.event.pdu.state_key()?).ok()?, seen.event.num))
                });
            let noted: Vec<_> = members.iter().cloned().chain(changed).chain(told).collect();
            sent.note(user, device, nid, (seen, self.next.position), noted);
        }
        for (user, num) in members {
            nums.entry(StateKey::new(MEMBER, user)).or_insert(num);
        }
        Ok(nums)
    }

    /// Renders timeline and state.
    pub(super) async fn part(
        &self,
        place: &Place<'_>,
        told: Told,
        account_data: Vec<Json>,
    ) -> Result<RoomPart, Error> {
        let view = &place.view;
        let form = self.form();
        let in_timeline: BTreeSet<EventNum> = told.slice.events.iter().map(|seen| seen.event.num).collect();
        let wanted = &self.request.filter.room.state;
        let nums: Vec<EventNum> = told
            .nums
            .iter()
            .filter(|(key, num)| {
                let again = !self.request.state_after && in_timeline.contains(num);
                !again && filter::wants_kind(wanted, key.event_type())
            })
            .map(|(_, num)| *num)
            .collect();
        let mut found = if nums.is_empty() { Vec::new() } else { view.load(&nums).await? };
        // The state before the timeline may be of a time when the user was not in the room.
        if let Some(first) = told.slice.events.first().filter(|_| !self.request.state_after) {
            let at = [first.event.meta.before, first.event.meta.after];
            view.veil_state(&self.request.user, &at, found.iter_mut().collect()).await?;
        }
        found.retain(|event| passes(wanted, &view.room_id, &event.pdu));
        let state = view.render_state(&found, form)?;
        let events = self.told(place, &told.slice.events, form).await?;
        Ok(RoomPart {
            timeline: Timeline {
                events,
                limited: told.slice.limited,
                prev_batch: format!("t{}", told.slice.start),
            },
            state: if self.request.state_after { StatePart::After(state) } else { StatePart::Before(state) },
            account_data,
        })
    }

    /// Renders the timeline, sharing what is the same for everybody.
    async fn told(&self, place: &Place<'_>, events: &[Seen], form: Form) -> Result<Vec<Json>, Error> {
        let shared = match form {
            Form::Sync => {
                let now = self.delivery.0.world.now();
                place.tail.rendered(&place.view, &self.request.user, events, now).await?
            }
            _ => vec![None; events.len()],
        };
        let missing = events.iter().zip(&shared).filter(|(_, shared)| shared.is_none());
        let missing: Vec<Seen> = missing.map(|(seen, _)| seen.clone()).collect();
        if missing.is_empty() {
            return Ok(shared.into_iter().flatten().collect());
        }
        let mut rendered = place.view.render(&self.actor, &missing, form, Bundle::All).await?.into_iter();
        Ok(shared.into_iter().filter_map(|shared| shared.or_else(|| rendered.next())).collect())
    }

    async fn ephemeral(
        &self,
        place: &Place<'_>,
        known: Option<Position>,
        personal: &Personal,
    ) -> Result<Vec<Json>, Error> {
        let (view, wanted) = (&place.view, &self.request.filter.room.ephemeral);
        let mut events = Vec::new();
        if !passes_room(wanted, &view.room_id) {
            return Ok(events);
        }
        if filter::wants_kind(wanted, "m.receipt") {
            let receipts = match known {
                Some(_) if !touched(&self.look, |touched| touched.receipts.contains(&view.nid)) => Vec::new(),
                Some(seen) => view.reader.receipts_after(view.nid, seen).await?,
                None => self.latest_receipts(view).await?,
            };
            events.extend(self.receipts(receipts, &personal.settings.ignored));
        }
        if filter::wants_kind(wanted, "m.typing") {
            let typing = match known {
                Some(_) => personal.typing.get(&view.nid).cloned(),
                None => Some(self.delivery.0.typing.in_room(view.nid)).filter(|users| !users.is_empty()),
            };
            events.extend(typing.map(|mut users| {
                users.retain(|user| !personal.settings.ignored.contains(user));
                raw(&json!({"type": "m.typing", "content": {"user_ids": users}}))
            }));
        }
        Ok(events)
    }

    /// The latest receipts of a room and, whatever their age, the user's own.
    async fn latest_receipts(&self, view: &View<'_>) -> Result<Vec<ReceiptRow>, Error> {
        let mut rows = view.reader.latest_receipts(view.nid, Position(0), RECEIPTS).await?;
        if rows.len() == RECEIPTS {
            rows.retain(|(key, _)| key.user != self.request.user);
            rows.extend(view.reader.user_receipts(view.nid, &self.request.user).await?);
        }
        Ok(rows)
    }

    /// Receipts as events: one, as a rule. Of two receipts of a user for the same event that without a thread is told,
    /// those of several threads go into further events.
    ///
    /// Specification: client-server API, "Threaded read receipts"; MSC4102.
    pub(super) fn receipts(&self, receipts: Vec<ReceiptRow>, ignored: &BTreeSet<OwnedUserId>) -> Vec<Json> {
        let mut by_place: BTreeMap<ReceiptPlace, Vec<(String, u64)>> = BTreeMap::new();
        for (key, at) in receipts {
            let own = key.user == self.request.user;
            let kind = match key.kind {
                ReceiptKind::Public => "m.read",
                ReceiptKind::Private if own => "m.read.private",
                ReceiptKind::Private => continue,
            };
            if !ignored.contains(&key.user) {
                let place = (at.value.event.0.to_string(), kind, key.user);
                by_place.entry(place).or_default().push((key.thread, at.value.ts));
            }
        }
        let mut contents: Vec<BTreeMap<String, Map<String, Value>>> = Vec::new();
        for ((event, kind, user), mut threads) in by_place {
            threads.sort();
            if threads.first().is_some_and(|(thread, _)| thread.is_empty()) {
                threads.truncate(1);
            }
            for (turn, (thread, ts)) in threads.into_iter().enumerate() {
                if contents.len() <= turn {
                    contents.push(BTreeMap::new());
                }
                let mut receipt = json!({ "ts": ts });
                if !thread.is_empty() {
                    receipt["thread_id"] = thread.into();
                }
                let kinds = contents[turn].entry(event.clone()).or_default();
                kinds.entry(kind).or_insert_with(|| json!({}))[user.as_str()] = receipt;
            }
        }
        contents.iter().map(|content| raw(&json!({"type": "m.receipt", "content": content}))).collect()
    }
}

pub(super) fn raw(value: &Value) -> Json {
    to_raw_value(value).expect("a JSON value is JSON")
}

/// A user's membership in a state.
pub(super) async fn membership_at(
    view: &View<'_>,
    at: StateRef,
    user: &UserId,
) -> Result<MembershipState, Error> {
    let event = view.state_event_at(at, StateEventType::RoomMember, user.as_str()).await?;
    Ok(membership(event.as_ref().map(|event| &event.pdu)))
}

/// Whether an event is somebody's membership.
pub(super) fn is_member(event: &Event) -> bool {
    *event.pdu.kind() == ruma::events::TimelineEventType::RoomMember
}
