//! `POST /v1/user/{userId}/redact` and `GET /v1/user/redact_status/{redactId}`: redact what somebody said, in the
//! background.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{Administrator, Api, Body, Result},
    jobs::{RedactUser, Work},
};

/// Events of each room where no number is given.
const USUAL: usize = 1_000;

#[derive(Deserialize)]
pub(super) struct Request {
    rooms: Vec<OwnedRoomId>,
    reason: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    use_admin: bool,
}

/// In the user's own name, which needs no power in the room; in the administrator's where that is asked for or the user
/// is not of this server. No rooms stands for all of the user's.
pub(super) async fn start(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    let limit = request.limit.unwrap_or(USUAL);
    if limit == 0 {
        return Err(chappe_web::Error::invalid_param("limit must be at least 1").into());
    }
    let mut rooms = request.rooms;
    if rooms.is_empty() {
        rooms = api.rooms.memberships(&user).await?.into_iter().map(|(room, _)| room).collect();
    }
    let own = api.accounts.is_local(&user) && !request.use_admin;
    let redactor = if own { user.clone() } else { administrator.user().to_owned() };
    let reason = request.reason;
    let work = RedactUser { user, redactor, rooms, reason, limit, redacted: 0, failed: BTreeMap::new() };
    let by = administrator.user().to_owned();
    let id = api.jobs.start(Some(by), &Work::RedactUser(work)).await?;
    Ok(Json(json!({ "redact_id": id })))
}

pub(super) async fn status(State(api): State<Api>, Arguments(id): Arguments<String>) -> Result<Json<Value>> {
    let Some((job, Work::RedactUser(work))) = api.jobs.job(&id).await? else {
        return Err(chappe_web::Error::not_found("No such redact task").into());
    };
    let mut shown = json!({
        "status": job.progress, "successful_redactions_count": work.redacted,
        "failed_redactions": work.failed,
    });
    if let Some(error) = job.error {
        shown["error"] = error.into();
    }
    Ok(Json(shown))
}
