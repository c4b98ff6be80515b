//! `GET /v2/rooms/{roomId}/delete_status` and `GET /v2/rooms/delete_status/{deleteId}`.

use axum::{Json, extract::State};
use chappe_store::jobs::Job;
use chappe_web::Arguments;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::{
    api::{Api, Result},
    jobs::{DeleteRoom, Work},
};

pub(super) async fn of_room(
    State(api): State<Api>,
    Arguments(room): Arguments<OwnedRoomId>,
) -> Result<Json<Value>> {
    let mut found = Vec::new();
    for (id, job, work) in api.jobs.all().await? {
        if let Work::DeleteRoom(work) = work
            && work.room == room
        {
            found.push(shown(&id, &job, &work));
        }
    }
    if found.is_empty() {
        return Err(chappe_web::Error::not_found("No delete task for this room").into());
    }
    Ok(Json(json!({ "results": found })))
}

pub(super) async fn of_job(State(api): State<Api>, Arguments(id): Arguments<String>) -> Result<Json<Value>> {
    match api.jobs.job(&id).await? {
        Some((job, Work::DeleteRoom(work))) => Ok(Json(shown(&id, &job, &work))),
        _ => Err(chappe_web::Error::not_found("No such delete task").into()),
    }
}

fn shown(id: &str, job: &Job, work: &DeleteRoom) -> Value {
    let mut shown = json!({
        "delete_id": id, "room_id": work.room, "status": job.progress, "shutdown_room": work.outcome,
    });
    if let Some(error) = &job.error {
        shown["error"] = error.as_str().into();
    }
    shown
}
