//! `GET /initialSync`: all of a user's rooms at once, from the same delta as `/sync` (deprecated by the specification).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use chappe_delivery::{Delivery, RoomPart, SyncRequest};
use chappe_rooms::{Rooms, Visibility};
use chappe_web::{Auth, Parameters, Routes};
use http::Method;
use ruma::{
    OwnedRoomId, RoomId, UInt, UserId, api::client::filter::FilterDefinition, presence::PresenceState,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    Api,
    error::Result,
    events::{VERSIONS, in_room},
    rates::Limits,
    requester::Requester,
};

/// Messages of each room when the request does not say how many.
const USUAL: u32 = 10;

pub(crate) fn routes() -> Routes<Api> {
    VERSIONS.iter().fold(Routes::new(), |routes, version| {
        routes.at(&Method::GET, &format!("/_matrix/client/{version}/initialSync"), Auth::Token, handler)
    })
}

#[derive(Deserialize)]
pub(crate) struct Query {
    limit: Option<u32>,
    #[serde(default)]
    archived: bool,
}

#[derive(Serialize)]
struct Answer {
    end: String,
    rooms: Vec<Shown>,
    presence: Vec<Box<RawValue>>,
    receipts: Vec<Box<RawValue>>,
    account_data: Vec<Box<RawValue>>,
}

/// A room of the answer.
#[derive(Default, Serialize)]
pub(crate) struct Shown {
    pub(crate) room_id: Option<OwnedRoomId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) membership: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) visibility: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<Messages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account_data: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) presence: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) receipts: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inviter: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) invite: Option<Box<RawValue>>,
}

/// The newest messages of a room.
#[derive(Serialize)]
pub(crate) struct Messages {
    pub(crate) chunk: Vec<Box<RawValue>>,
    pub(crate) start: String,
    pub(crate) end: String,
}

async fn handler(
    State(delivery): State<Delivery>,
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Answer>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let mut wanted = whole(requester.user(), query.limit);
    let mut filter = FilterDefinition::clone(&wanted.filter);
    filter.room.include_leave = query.archived;
    wanted.filter = Arc::new(filter);
    let delta = delivery.sync(&wanted).await?;
    let end = delta.next.to_string();
    let (mut all, mut receipts) = (Vec::new(), Vec::new());
    for (room, joined) in delta.joined {
        let read = joined.ephemeral.iter().filter(|event| is_receipt(event));
        receipts.extend(read.map(|event| in_room(event, &room)));
        let mut shown = render(&room, &joined.part, &end);
        shown.membership = Some("join");
        shown.visibility = Some(visibility(&rooms, &room).await?);
        all.push(shown);
    }
    for (room, stripped) in delta.invited {
        all.push(invited(&room, requester.user(), &stripped));
    }
    for (room, left) in delta.left {
        let mut shown = render(&room, &left.part, &end);
        shown.membership = Some(membership(&rooms, requester.user(), &room).await?);
        all.push(shown);
    }
    let (presence, account_data) = (delta.presence, delta.account_data);
    Ok(Json(Answer { end, rooms: all, presence, receipts, account_data }))
}

/// A question for everything, with the newest messages of each room.
pub(crate) fn whole(user: &UserId, limit: Option<u32>) -> SyncRequest {
    let mut filter = FilterDefinition::default();
    filter.room.timeline.limit = Some(UInt::from(limit.unwrap_or(USUAL)));
    SyncRequest {
        user: user.to_owned(),
        device: None,
        since: None,
        filter: Arc::new(filter),
        full_state: false,
        state_after: true,
        presence: PresenceState::Online,
        timeout: Duration::ZERO,
    }
}

/// A room with its state of now, its newest messages and the user's data of it.
pub(crate) fn render(room: &RoomId, part: &RoomPart, end: &str) -> Shown {
    let named = |events: &[Box<RawValue>]| -> Vec<Box<RawValue>> {
        events.iter().map(|event| in_room(event, room)).collect()
    };
    let (start, end) = (part.timeline.prev_batch.clone(), end.to_owned());
    Shown {
        room_id: Some(room.to_owned()),
        messages: Some(Messages { chunk: named(&part.timeline.events), start, end }),
        state: Some(named(part.state.events())),
        account_data: Some(part.account_data.clone()),
        ..Shown::default()
    }
}

/// Whether a room is in the public directory.
pub(crate) async fn visibility(rooms: &Rooms, room: &RoomId) -> Result<&'static str> {
    Ok(match rooms.directory_visibility(room).await? {
        Visibility::Public => "public",
        Visibility::Private => "private",
    })
}

/// How a user left a room.
pub(crate) async fn membership(rooms: &Rooms, user: &UserId, room: &RoomId) -> Result<&'static str> {
    Ok(rooms.membership(user, room).await?.unwrap_or("leave"))
}

fn invited(room: &OwnedRoomId, user: &UserId, stripped: &[Box<RawValue>]) -> Shown {
    let fields = |event: &RawValue| serde_json::from_str::<BTreeMap<String, Value>>(event.get()).ok();
    let own = stripped.iter().filter_map(|event| Some((event, fields(event)?))).find(|(_, fields)| {
        fields.get("type").is_some_and(|kind| kind == "m.room.member")
            && fields.get("state_key").is_some_and(|key| key == user.as_str())
    });
    let (room_id, membership) = (Some(room.clone()), Some("invite"));
    let mut shown = Shown { room_id, membership, ..Shown::default() };
    if let Some((event, fields)) = own {
        shown.inviter = fields.get("sender").cloned();
        shown.invite = Some(in_room(event, room));
    }
    shown
}

fn is_receipt(event: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type")]
        kind: std::borrow::Cow<'a, str>,
    }
    serde_json::from_str::<Kind<'_>>(event.get()).is_ok_and(|event| event.kind == "m.receipt")
}
