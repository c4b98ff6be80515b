//! `POST /v1/purge_history/{roomId}[/{eventId}]` and `GET /v1/purge_history_status/{purgeId}`: remove old messages of a
//! room, in the background. Its state stays.

use axum::{Json, extract::State};
use chappe_store::jobs::Progress;
use chappe_web::{Arguments, Routes};
use http::StatusCode;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Place as _, must_know};
use crate::{
    api::{Administrator, Api, Body, Result},
    jobs::{PurgeHistory, Work},
};

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .post("/_synapse/admin/v1/purge_history/{room_id}", of_room)
        .post("/_synapse/admin/v1/purge_history/{room_id}/{event_id}", up_to_event)
        .get("/_synapse/admin/v1/purge_history_status/{purge_id}", status)
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    delete_local_events: bool,
    purge_up_to_event_id: Option<OwnedEventId>,
    purge_up_to_ts: Option<u64>,
}

async fn of_room(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<OwnedRoomId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    start(&api, &administrator, room, None, request).await
}

async fn up_to_event(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments((room, event)): Arguments<(OwnedRoomId, OwnedEventId)>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    start(&api, &administrator, room, Some(event), request).await
}

/// The event that is named stays.
async fn start(
    api: &Api,
    administrator: &Administrator,
    room: OwnedRoomId,
    event: Option<OwnedEventId>,
    request: Request,
) -> Result<Json<Value>> {
    must_know(api, &room).await?;
    let up_to = match (event.or(request.purge_up_to_event_id), request.purge_up_to_ts) {
        (Some(event), _) => api.rooms.place_of(&room, &event).await?,
        (None, Some(at)) => api.rooms.place_at(&room, at).await?,
        (None, None) => {
            let said = "Must specify purge_up_to_event_id or purge_up_to_ts";
            return Err(chappe_web::Error::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", said).into());
        }
    };
    let work = PurgeHistory { room, up_to, with_local: request.delete_local_events, purged: 0 };
    let by = administrator.user().to_owned();
    let id = api.jobs.start(Some(by), &Work::PurgeHistory(work)).await?;
    Ok(Json(json!({ "purge_id": id })))
}

async fn status(State(api): State<Api>, Arguments(id): Arguments<String>) -> Result<Json<Value>> {
    let Some((job, Work::PurgeHistory(_))) = api.jobs.job(&id).await? else {
        return Err(chappe_web::Error::not_found("No such purge").into());
    };
    // Synapse knows no purge that waits.
    let progress = if job.progress == Progress::Scheduled { Progress::Active } else { job.progress };
    let mut shown = json!({ "status": progress });
    if let Some(error) = job.error {
        shown["error"] = error.into();
    }
    Ok(Json(shown))
}
