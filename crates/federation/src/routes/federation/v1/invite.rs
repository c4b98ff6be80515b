//! `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`: an invite of a local user to a room of version 1 or 2, to be
//! signed; the answer is wrapped in `[200, …]`.

use axum::{Json, extract::State};
use chappe_rooms::Invitation;
use ruma::{RoomVersionId, api::federation::membership::create_leave_event::v2::Request as WholeEvent};
use serde::Deserialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{Federation, Origin, refusal::Refusal, routes::federation::v2};

#[derive(Deserialize, Default)]
struct Told {
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    unsigned: Told,
}

#[derive(Deserialize)]
struct Create {
    #[serde(rename = "type")]
    kind: String,
    content: CreateContent,
}

#[derive(Deserialize)]
struct CreateContent {
    room_version: Option<RoomVersionId>,
}

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<WholeEvent>,
) -> Result<Json<(u16, Value)>, Refusal> {
    let room_state = serde_json::from_str(request.pdu.get())
        .map_or_else(|_| Vec::new(), |event: Event| event.unsigned.invite_room_state);
    let room_version = version_told(&room_state);
    let invitation = Invitation { room_version, event: request.pdu, room_state };
    let event =
        v2::invite::accept(&federation, &origin, (&request.room_id, &request.event_id), invitation).await?;
    Ok(Json((200, json!({ "event": to_raw_value(&event).ok() }))))
}

/// Two versions of room have this form of event and of invite, and the oldest one says nothing of itself.
fn version_told(room_state: &[Box<RawValue>]) -> RoomVersionId {
    let told = room_state.iter().filter_map(|raw| serde_json::from_str::<Create>(raw.get()).ok());
    let version =
        told.filter(|event| event.kind == "m.room.create").find_map(|create| create.content.room_version);
    version.filter(|version| *version == RoomVersionId::V2).unwrap_or(RoomVersionId::V1)
}
