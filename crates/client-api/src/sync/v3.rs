//! `GET /sync`: what a device has not seen yet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_delivery::{Delivery, Delta, JoinedRoom, LeftRoom, RoomPart, StatePart, SyncRequest, Timeline};
use chappe_web::{Parameters, Ruma};
use ruma::{
    OneTimeKeyAlgorithm, OwnedEventId, OwnedRoomId, OwnedUserId,
    api::client::{
        filter::FilterDefinition,
        sync::sync_events::v3::{Filter, Request},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{error::Result, requester::Requester, sync::presence};

/// Not an async function: that would have room for the whole request, with a filter in it, for as long as it waits.
pub(super) fn handler(
    State(delivery): State<Delivery>,
    State(accounts): State<Accounts>,
    requester: Requester,
    Parameters(early): Parameters<Early>,
    Ruma(request): Ruma<Request>,
) -> impl Future<Output = Result<Json<Answer>>> + Send {
    let Request { filter, since, full_state, set_presence, timeout, use_state_after, .. } = request;
    let filter = Wanted::of(filter, &accounts);
    async move {
        let since = since.as_deref().map(str::parse).transpose()?;
        let wanted = SyncRequest {
            user: requester.user().to_owned(),
            device: requester.device_id.clone(),
            since,
            filter: filter?.found(&requester, &accounts).await?,
            full_state,
            state_after: use_state_after || early.state_after,
            presence: presence::known(set_presence)?,
            timeout: timeout.unwrap_or(Duration::ZERO),
        };
        let apart = wanted.filter.room.timeline.unread_thread_notifications;
        let threads = if apart { Threads::Apart } else { Threads::Included };
        let naming = if use_state_after { Naming::Stable } else { Naming::Early };
        let delta = delivery.sync(&wanted).await?;
        accounts.still_admits(&requester).await?;
        Ok(Json(answer(delta, Style { threads, naming })))
    }
}

/// The filter of a request, or the id of a stored one.
enum Wanted {
    Filter(Arc<FilterDefinition>),
    Stored(String),
}

impl Wanted {
    fn of(filter: Option<Filter>, accounts: &Accounts) -> Result<Self> {
        Ok(match filter {
            None => Self::Filter(accounts.shared_filter(FilterDefinition::default())),
            Some(Filter::FilterDefinition(filter)) => Self::Filter(accounts.shared_filter(filter)),
            Some(Filter::FilterId(id)) => Self::Stored(id),
            Some(_) => return Err(chappe_web::Error::invalid_param("Not a filter").into()),
        })
    }

    async fn found(self, requester: &Requester, accounts: &Accounts) -> Result<Arc<FilterDefinition>> {
        match self {
            Self::Filter(filter) => Ok(filter),
            Self::Stored(id) => {
                let filter = accounts.filter(requester.user(), &id).await?;
                Ok(filter.ok_or_else(|| chappe_web::Error::invalid_param("No such filter"))?)
            }
        }
    }
}

/// Parameters from before they were part of the specification.
#[derive(Debug, Deserialize)]
pub(super) struct Early {
    #[serde(default, rename = "org.matrix.msc4222.use_state_after")]
    state_after: bool,
}

/// How an answer is written.
#[derive(Clone, Copy)]
struct Style {
    threads: Threads,
    naming: Naming,
}

/// Under which name the state after the timeline goes (MSC4222).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    Stable,
    Early,
}

/// Whether unread threads are counted apart from their room (client-server API, "Receiving notifications").
#[derive(Clone, Copy)]
enum Threads {
    Apart,
    Included,
}

type Event = Box<RawValue>;

/// The answer, as the client-server API names things. Lists and objects without content are left out.
#[derive(Serialize)]
pub(crate) struct Answer {
    next_batch: String,
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    rooms: Rooms,
    #[serde(skip_serializing_if = "Events::is_empty")]
    account_data: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    presence: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    to_device: Events,
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    device_lists: DeviceLists,
    device_one_time_keys_count: BTreeMap<OneTimeKeyAlgorithm, u32>,
    device_unused_fallback_key_types: Vec<OneTimeKeyAlgorithm>,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
}

impl Events {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[derive(Serialize)]
struct DeviceLists {
    changed: Vec<OwnedUserId>,
    left: Vec<OwnedUserId>,
}

impl DeviceLists {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

#[derive(Serialize)]
struct Rooms {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<OwnedRoomId, Joined>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<OwnedRoomId, Invited>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<OwnedRoomId, Knocked>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<OwnedRoomId, Part>,
}

impl Rooms {
    fn is_empty(&self) -> bool {
        self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty() && self.leave.is_empty()
    }
}

#[derive(Serialize)]
struct Invited {
    invite_state: Events,
}

#[derive(Serialize)]
struct Knocked {
    knock_state: Events,
}

/// Both kinds of room have these.
#[derive(Serialize)]
struct Part {
    timeline: Page,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    #[serde(rename = "org.matrix.msc4222.state_after", skip_serializing_if = "Option::is_none")]
    early_state_after: Option<Events>,
    account_data: Events,
}

#[derive(Serialize)]
struct Page {
    events: Vec<Event>,
    limited: bool,
    prev_batch: String,
}

#[derive(Serialize)]
struct Joined {
    #[serde(flatten)]
    part: Part,
    ephemeral: Events,
    #[serde(rename = "msc4354_sticky", skip_serializing_if = "Events::is_empty")]
    sticky: Events,
    unread_notifications: Counts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unread_thread_notifications: BTreeMap<OwnedEventId, Counts>,
    summary: Summary,
}

#[derive(Serialize)]
struct Counts {
    notification_count: u64,
    highlight_count: u64,
}

impl From<chappe_rules::push::Counts> for Counts {
    fn from(counts: chappe_rules::push::Counts) -> Self {
        Self { notification_count: counts.notifications, highlight_count: counts.highlights }
    }
}

#[derive(Serialize)]
struct Summary {
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    heroes: Option<Vec<OwnedUserId>>,
    #[serde(rename = "m.joined_member_count", skip_serializing_if = "Option::is_none")]
    joined: Option<u64>,
    #[serde(rename = "m.invited_member_count", skip_serializing_if = "Option::is_none")]
    invited: Option<u64>,
}

fn answer(delta: Delta, style: Style) -> Answer {
    let stripped = |(room, events): (OwnedRoomId, Vec<Event>)| (room, Events { events });
    let rooms = Rooms {
        join: delta.joined.into_iter().map(|(id, room)| (id, joined(room, style))).collect(),
        invite: (delta.invited.into_iter().map(stripped))
            .map(|(id, invite_state)| (id, Invited { invite_state }))
            .collect(),
        knock: (delta.knocked.into_iter().map(stripped))
            .map(|(id, knock_state)| (id, Knocked { knock_state }))
            .collect(),
        leave: (delta.left.into_iter())
            .map(|(id, LeftRoom { part })| (id, Part::new(part, style.naming)))
            .collect(),
    };
    Answer {
        next_batch: delta.next.to_string(),
        rooms,
        account_data: Events { events: delta.account_data },
        presence: Events { events: delta.presence },
        to_device: Events { events: delta.to_device },
        device_lists: DeviceLists { changed: delta.device_lists.changed, left: delta.device_lists.left },
        device_one_time_keys_count: delta.keys.one_time_keys,
        device_unused_fallback_key_types: delta.keys.unused_fallback,
    }
}

fn joined(room: JoinedRoom, style: Style) -> Joined {
    let JoinedRoom { part, ephemeral, sticky, unread, summary } = room;
    let (unread_notifications, unread_thread_notifications) = match style.threads {
        Threads::Included => (unread.total.into(), BTreeMap::new()),
        Threads::Apart => {
            let threads = unread.threads.into_iter().map(|(root, counts)| (root, counts.into()));
            (unread.main.into(), threads.collect())
        }
    };
    Joined {
        part: Part::new(part, style.naming),
        ephemeral: Events { events: ephemeral },
        sticky: Events { events: sticky },
        unread_notifications,
        unread_thread_notifications,
        summary: Summary { heroes: summary.heroes, joined: summary.joined, invited: summary.invited },
    }
}

impl Part {
    fn new(part: RoomPart, naming: Naming) -> Self {
        let Timeline { events, limited, prev_batch } = part.timeline;
        let (state, state_after, early_state_after) = match part.state {
            StatePart::Before(events) => (Some(Events { events }), None, None),
            StatePart::After(events) if naming == Naming::Stable => (None, Some(Events { events }), None),
            StatePart::After(events) => (None, None, Some(Events { events })),
        };
        Self {
            timeline: Page { events, limited, prev_batch },
            state,
            state_after,
            early_state_after,
            account_data: Events { events: part.account_data },
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::api::client::filter::FilterDefinition;

    /// Bytes of what a handler gives.
    fn size<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_that_waits_has_no_room_for_its_filter() {
        let size = size(super::handler);
        assert!(size < 4_096 + size_of::<FilterDefinition>(), "{size} bytes");
    }
}
