//! `GET /rooms/{roomId}/initialSync`: one room at once, also for those who may only look into it (deprecated by the
//! specification, called by clients that preview a room).

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_delivery::Delivery;
use chappe_rooms::{PageRequest, Rooms};
use chappe_web::{Parameters, Ruma};
use ruma::{
    RoomId,
    api::{
        Direction,
        client::{
            filter::{FilterDefinition, RoomEventFilter},
            peeking::get_current_state::v3::Request,
        },
    },
};
use serde::Deserialize;

use crate::{
    error::Result,
    initial_sync::{Messages, Shown, membership, render, visibility, whole},
    rates::Limits,
    requester::Requester,
};

/// Messages when the request does not say how many, and at most.
const USUAL: u32 = 10;
const MOST: u32 = 100;

#[derive(Deserialize)]
pub(super) struct Query {
    limit: Option<u32>,
}

pub(super) async fn handler(
    State(delivery): State<Delivery>,
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Parameters(query): Parameters<Query>,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Shown>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let (room, user) = (&request.room_id, requester.user());
    let limit = query.limit.unwrap_or(USUAL).min(MOST);
    let mut wanted = whole(user, Some(limit));
    let mut filter = FilterDefinition::clone(&wanted.filter);
    filter.room.rooms = Some(vec![room.clone()]);
    filter.room.include_leave = true;
    wanted.filter = Arc::new(filter);
    let mut delta = delivery.sync(&wanted).await?;
    let end = delta.next.to_string();
    let mut shown = if let Some(joined) = delta.joined.remove(room) {
        let mut shown = render(room, &joined.part, &end);
        shown.membership = Some("join");
        shown.presence = Some(delta.presence);
        shown.receipts = Some(joined.ephemeral);
        shown
    } else if let Some(left) = delta.left.remove(room) {
        let mut shown = render(room, &left.part, &end);
        shown.membership = Some(membership(&rooms, user, room).await?);
        shown
    } else {
        preview(&rooms, &requester, room, limit, &end).await?
    };
    shown.visibility = Some(visibility(&rooms, room).await?);
    Ok(Json(shown))
}

/// A room that the user may look into without being in it.
async fn preview(
    rooms: &Rooms,
    requester: &Requester,
    room: &RoomId,
    limit: u32,
    end: &str,
) -> Result<Shown> {
    let state = rooms.state(&requester.actor(), room).await?;
    let filter = RoomEventFilter::default();
    let wanted = PageRequest {
        from: None,
        to: None,
        direction: Direction::Backward,
        limit: limit.into(),
        filter: &filter,
        relations: None,
    };
    let mut page = rooms.messages(&requester.actor(), room, wanted).await?;
    page.chunk.reverse();
    let start = page.end.unwrap_or(page.start);
    Ok(Shown {
        room_id: Some(room.to_owned()),
        messages: Some(Messages { chunk: page.chunk, start, end: end.to_owned() }),
        state: Some(state),
        account_data: Some(Vec::new()),
        ..Shown::default()
    })
}
