//! `GET /events`: what happened since a token, for the user, or in one room that may be looked into.
//!
//! Messages to devices are not among it: they belong to `/sync`, which forgets them once they were seen.

use std::time::Duration;

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_delivery::{Delivery, Delta, SyncRequest, SyncToken, Timeline};
use chappe_rooms::{PageRequest, Rooms};
use chappe_web::Parameters;
use ruma::{
    OwnedRoomId, RoomId,
    api::{
        Direction,
        client::filter::{FilterDefinition, RoomEventFilter},
    },
    presence::PresenceState,
    uint,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::in_room;
use crate::{
    error::Result,
    rates::Limits,
    requester::{Requester, not_for_guests},
};

/// How long a request waits that does not say.
const USUAL: Duration = Duration::from_secs(30);
/// Pages of what did not fit in the timelines, of all rooms of one answer together.
const PAGES: usize = 10;

#[derive(Deserialize)]
pub(super) struct Query {
    from: Option<String>,
    timeout: Option<u64>,
    room_id: Option<OwnedRoomId>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    start: String,
    end: String,
    chunk: Vec<Box<RawValue>>,
}

pub(super) async fn handler(
    State(delivery): State<Delivery>,
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    State(accounts): State<Accounts>,
    requester: Requester,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Answer>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let from = match query.from.as_deref().filter(|from| !from.is_empty()) {
        Some(from) => from.parse()?,
        None => delivery.now(),
    };
    let timeout = query.timeout.map_or(USUAL, Duration::from_millis);
    if let Some(room) = query.room_id {
        let peeked = delivery.peek(&requester.actor(), &room, Some(from), timeout).await?;
        accounts.still_admits(&requester).await?;
        let (start, end) = (from.to_string(), peeked.next.to_string());
        return Ok(Json(Answer { start, end, chunk: peeked.events }));
    }
    if requester.is_guest() {
        return Err(not_for_guests().into());
    }
    let mut filter = FilterDefinition::default();
    filter.room.timeline.limit = Some(uint!(100));
    let wanted = SyncRequest {
        user: requester.user().to_owned(),
        device: None,
        since: Some(from),
        filter: accounts.shared_filter(filter),
        full_state: false,
        state_after: false,
        presence: PresenceState::Online,
        timeout,
    };
    let delta = delivery.sync(&wanted).await?;
    accounts.still_admits(&requester).await?;
    let end = delta.next.to_string();
    let chunk = chunk(&rooms, &requester, from, delta).await?;
    Ok(Json(Answer { start: from.to_string(), end, chunk }))
}

/// Everything of a delta in one list.
async fn chunk(
    rooms: &Rooms,
    requester: &Requester,
    from: SyncToken,
    delta: Delta,
) -> Result<Vec<Box<RawValue>>> {
    let mut chunk: Vec<Box<RawValue>> = delta.account_data;
    chunk.extend(delta.presence);
    for (room, left) in &delta.left {
        chunk.extend(left.part.timeline.events.iter().map(|event| in_room(event, room)));
    }
    for (room, stripped) in delta.invited.iter().chain(&delta.knocked) {
        let own = stripped.iter().filter(|event| is_membership_of(event, requester.user().as_str()));
        chunk.extend(own.map(|event| in_room(event, room)));
    }
    let mut pages = PAGES;
    for (room, joined) in delta.joined {
        let timeline = joined.part.timeline;
        if timeline.limited {
            chunk.extend(before((rooms, requester), &room, from, &timeline, &mut pages).await?);
        }
        let rest = timeline.events.iter().chain(&joined.part.account_data).chain(&joined.ephemeral);
        chunk.extend(rest.map(|event| in_room(event, &room)));
    }
    Ok(chunk)
}

/// What was said after the token and before what fits in a timeline, oldest first, as far as the pages that are left reach.
async fn before(
    (rooms, requester): (&Rooms, &Requester),
    room: &RoomId,
    from: SyncToken,
    timeline: &Timeline,
    pages: &mut usize,
) -> Result<Vec<Box<RawValue>>> {
    let (to, filter) = (from.to_string(), RoomEventFilter::default());
    let (mut next, mut events) = (Some(timeline.prev_batch.clone()), Vec::new());
    while *pages > 0
        && let Some(at) = next.take()
    {
        *pages -= 1;
        let wanted = PageRequest {
            from: Some(&at),
            to: Some(&to),
            direction: Direction::Backward,
            limit: 100,
            filter: &filter,
            relations: None,
        };
        let page = rooms.messages(&requester.actor(), room, wanted).await?;
        if page.chunk.is_empty() {
            break;
        }
        events.extend(page.chunk);
        next = page.end;
    }
    events.reverse();
    Ok(events)
}

fn is_membership_of(event: &RawValue, user: &str) -> bool {
    #[derive(Deserialize)]
    struct Stripped<'a> {
        #[serde(rename = "type")]
        kind: std::borrow::Cow<'a, str>,
        state_key: std::borrow::Cow<'a, str>,
    }
    serde_json::from_str::<Stripped<'_>>(event.get())
        .is_ok_and(|event| event.kind == "m.room.member" && event.state_key == user)
}
