//! What a client gets from a sliding sync, as MSC4186 and its extensions name things.

use std::collections::BTreeMap;

use chappe_delivery::{Extensions, Hero, Received, SlidingAnswer, SlidingRoom};
use ruma::{OneTimeKeyAlgorithm, OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::rooms::SubscriptionChanges;

type Event = Box<RawValue>;

/// The answer. What has not changed is left out.
#[derive(Serialize)]
pub(crate) struct Answer {
    pos: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn_id: Option<String>,
    lists: BTreeMap<String, Count>,
    rooms: BTreeMap<OwnedRoomId, Room>,
    extensions: ExtensionsPart,
}

#[derive(Serialize)]
struct Count {
    count: usize,
}

#[derive(Serialize)]
struct Room {
    membership: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    initial: bool,
    // The first proposal's name and the last one's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unstable_expanded_timeline: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expanded_timeline: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(clippy::option_option, reason = "absent: as before; null: there is none any more")]
    name: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(clippy::option_option, reason = "absent: as before; null: there is none any more")]
    avatar: Option<Option<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    heroes: Vec<HeroPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_dm: Option<bool>,
    bump_stamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invited_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    highlight_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_state: Option<Vec<Event>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_state: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Vec<Event>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limited: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_live: Option<usize>,
}

#[derive(Serialize)]
struct HeroPart {
    user_id: OwnedUserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    displayname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

#[derive(Serialize)]
struct ExtensionsPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    to_device: Option<ToDevicePart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e2ee: Option<E2eePart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_data: Option<AccountDataPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts: Option<ByRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    typing: Option<ByRoom>,
    #[serde(rename = "io.element.msc4308.thread_subscriptions", skip_serializing_if = "Option::is_none")]
    threads: Option<ThreadsPart>,
    #[serde(rename = "org.matrix.msc4354.sticky_events", skip_serializing_if = "Option::is_none")]
    sticky: Option<StickyPart>,
}

#[derive(Serialize)]
struct ToDevicePart {
    next_batch: String,
    events: Vec<Event>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the answer's fields")]
struct E2eePart {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_lists: Option<DeviceListsPart>,
    device_one_time_keys_count: BTreeMap<OneTimeKeyAlgorithm, u32>,
    device_unused_fallback_key_types: Vec<OneTimeKeyAlgorithm>,
}

#[derive(Serialize)]
struct DeviceListsPart {
    changed: Vec<OwnedUserId>,
    left: Vec<OwnedUserId>,
}

#[derive(Serialize)]
struct AccountDataPart {
    global: Vec<Event>,
    rooms: BTreeMap<OwnedRoomId, Vec<Event>>,
}

#[derive(Serialize)]
struct ThreadsPart {
    #[serde(flatten)]
    changes: SubscriptionChanges,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
}

#[derive(Serialize)]
struct StickyPart {
    next_batch: String,
    rooms: BTreeMap<OwnedRoomId, StickyRoom>,
}

#[derive(Serialize)]
struct StickyRoom {
    events: Vec<Event>,
}

#[derive(Serialize)]
struct ByRoom {
    rooms: BTreeMap<OwnedRoomId, Event>,
}

impl Answer {
    pub(super) fn new(answer: SlidingAnswer, txn_id: Option<String>) -> Self {
        let SlidingAnswer { pos, counts, rooms, extensions, .. } = answer;
        Self {
            pos,
            txn_id,
            lists: counts.into_iter().map(|(name, count)| (name, Count { count })).collect(),
            rooms: rooms.into_iter().map(|(id, room)| (id, room.into())).collect(),
            extensions: extensions.into(),
        }
    }
}

impl From<SlidingRoom> for Room {
    fn from(room: SlidingRoom) -> Self {
        // What a room begins without is left out; what it has lost is null.
        let changed = |value: Option<Option<String>>| value.filter(|value| value.is_some() || !room.initial);
        let (state, timeline) = match room.part {
            None => (Vec::new(), None),
            Some(part) => (part.state.into_events(), Some(part.timeline)),
        };
        let (limited, prev_batch, num_live) = match &timeline {
            None => (None, None, None),
            Some(timeline) => (Some(timeline.limited), Some(timeline.prev_batch.clone()), Some(room.live)),
        };
        Self {
            membership: room.membership,
            initial: room.initial,
            unstable_expanded_timeline: room.expanded,
            expanded_timeline: room.expanded,
            name: changed(room.name),
            avatar: changed(room.avatar),
            heroes: room.heroes.into_iter().map(HeroPart::from).collect(),
            is_dm: room.is_dm,
            bump_stamp: room.bump,
            joined_count: room.members.map(|(joined, _)| joined),
            invited_count: room.members.map(|(_, invited)| invited),
            notification_count: room.unread.as_ref().map(|unread| unread.total.notifications),
            highlight_count: room.unread.as_ref().map(|unread| unread.total.highlights),
            invite_state: room.stripped,
            required_state: state,
            timeline: timeline.map(|timeline| timeline.events),
            limited,
            prev_batch,
            num_live,
        }
    }
}

impl From<Hero> for HeroPart {
    fn from(hero: Hero) -> Self {
        Self {
            user_id: hero.user,
            displayname: hero.profile.display_name,
            avatar_url: hero.profile.avatar_url,
        }
    }
}

impl From<Extensions> for ExtensionsPart {
    fn from(extensions: Extensions) -> Self {
        let by_room = |rooms: BTreeMap<_, _>| (!rooms.is_empty()).then_some(ByRoom { rooms });
        let to_device = extensions.to_device.map(|to_device| ToDevicePart {
            next_batch: to_device.next_batch.to_string(),
            events: to_device.events,
        });
        let e2ee = extensions.e2ee.map(|e2ee| {
            let (changed, left) = (e2ee.lists.changed, e2ee.lists.left);
            let some = !changed.is_empty() || !left.is_empty();
            E2eePart {
                device_lists: some.then_some(DeviceListsPart { changed, left }),
                device_one_time_keys_count: e2ee.keys.one_time_keys,
                device_unused_fallback_key_types: e2ee.keys.unused_fallback,
            }
        });
        let sticky = extensions.sticky;
        let sticky = sticky.next_batch.map(|next_batch| StickyPart {
            next_batch: next_batch.to_string(),
            rooms: sticky.rooms.into_iter().map(|(id, events)| (id, StickyRoom { events })).collect(),
        });
        let threads = extensions.threads;
        let threads = (!threads.changes.is_empty()).then(|| ThreadsPart {
            changes: threads.changes.into(),
            prev_batch: threads.more.map(|more| Received::up_to(more).to_string()),
        });
        let (global, rooms) = (extensions.account_data, extensions.room_account_data);
        let some = !global.is_empty() || !rooms.is_empty();
        Self {
            to_device,
            e2ee,
            account_data: some.then_some(AccountDataPart { global, rooms }),
            receipts: by_room(extensions.receipts),
            typing: by_room(extensions.typing),
            threads,
            sticky,
        }
    }
}
