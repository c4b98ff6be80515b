//! `DELETE /v1/rooms/{roomId}`: take this server's users out of a room and remove it; answers when it is done.

use axum::{Json, extract::State};
use chappe_rooms::{Evicted, Replacement};
use chappe_store::jobs::Progress;
use chappe_web::Arguments;
use http::StatusCode;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::Deserialize;

use crate::{
    api::{Administrator, Api, Body, Result},
    jobs::{DeleteRoom, Work},
};

/// What is to be done, in both versions of the endpoint.
#[derive(Deserialize)]
pub(in crate::api) struct Request {
    new_room_user_id: Option<OwnedUserId>,
    room_name: Option<String>,
    message: Option<String>,
    #[serde(default)]
    pub(in crate::api) block: bool,
    #[serde(default = "yes")]
    purge: bool,
    #[serde(default)]
    force_purge: bool,
}

fn yes() -> bool {
    true
}

impl Request {
    /// The job. [`chappe_web::Error`] for a new room of somebody who is not of this server.
    pub(in crate::api) fn work(self, api: &Api, room: &RoomId) -> Result<Work> {
        let name = self.room_name.unwrap_or_else(|| "Content Violation Notification".to_owned());
        let usual =
            "Sharing illegal content on this server is not permitted and rooms in violation will be blocked.";
        let message = self.message.unwrap_or_else(|| usual.to_owned());
        let replacement = self.new_room_user_id.map(|user| Replacement { user, name, message });
        if replacement.as_ref().is_some_and(|new| !api.accounts.is_local(&new.user)) {
            return Err(chappe_web::Error::invalid_param("new_room_user_id is not of this server").into());
        }
        Ok(Work::DeleteRoom(DeleteRoom {
            room: room.to_owned(),
            number: None,
            block: self.block,
            purge: self.purge,
            force: self.force_purge,
            replacement,
            outcome: Evicted::default(),
        }))
    }
}

pub(super) async fn handler(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(room): Arguments<OwnedRoomId>,
    Body(request): Body<Request>,
) -> Result<Json<Evicted>> {
    if api.rooms.number(&room).await?.is_none() && !request.block {
        let said = "This room is not known here";
        return Err(chappe_web::Error::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", said).into());
    }
    let work = request.work(&api, &room)?;
    let id = api.jobs.start(Some(administrator.user().to_owned()), &work).await?;
    match api.jobs.ended(&id).await? {
        Some((job, Work::DeleteRoom(done))) if job.progress == Progress::Complete => Ok(Json(done.outcome)),
        Some((job, _)) => {
            let why = job.error.unwrap_or_else(|| "The room could not be deleted".to_owned());
            Err(chappe_web::Error::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", why).into())
        }
        None => Err(chappe_web::Error::busy().into()),
    }
}
