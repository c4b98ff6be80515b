//! `DELETE /v2/rooms/{roomId}`: take this server's users out of a room and remove it, in the background; and how far that
//! has come.

mod delete_status;

use axum::{Json, extract::State};
use chappe_web::{Arguments, Routes};
use http::StatusCode;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::{
    api::{
        Administrator, Api, Body, Result,
        v1::{DeleteRequest, Place as _, must_know},
    },
    jobs::Work,
};

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .delete("/_synapse/admin/v2/rooms/{room_id}", delete)
        .get("/_synapse/admin/v2/rooms/{room_id}/delete_status", delete_status::of_room)
        .get("/_synapse/admin/v2/rooms/delete_status/{delete_id}", delete_status::of_job)
}

async fn delete(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<OwnedRoomId>,
    Body(request): Body<DeleteRequest>,
) -> Result<Json<Value>> {
    if !request.block {
        must_know(&api, &room).await?;
    }
    let under_way = api.jobs.all().await?.into_iter().any(|(_, job, work)| {
        job.ended.is_none() && matches!(work, Work::DeleteRoom(other) if other.room == room)
    });
    if under_way {
        let said = "This room is being deleted";
        return Err(chappe_web::Error::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", said).into());
    }
    let work = request.work(&api, &room)?;
    let id = api.jobs.start(Some(administrator.user().to_owned()), &work).await?;
    Ok(Json(json!({ "delete_id": id })))
}
