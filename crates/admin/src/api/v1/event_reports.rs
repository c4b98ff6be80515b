//! `/v1/event_reports` and `/v1/user_reports`: what users have reported to the administrators.

mod report;
mod users;

use std::collections::HashMap;

use axum::{Json, extract::State};
use chappe_rooms::Listed;
use chappe_store::reports::Report;
use chappe_web::{Parameters, Routes};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Place as _;
use crate::api::{Api, Dir, Page, Result};

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .get("/_synapse/admin/v1/event_reports", list)
        .get("/_synapse/admin/v1/event_reports/{report_id}", report::show)
        .delete("/_synapse/admin/v1/event_reports/{report_id}", report::delete)
        .get("/_synapse/admin/v1/user_reports", users::list)
        .get("/_synapse/admin/v1/user_reports/{report_id}", users::show)
        .delete("/_synapse/admin/v1/user_reports/{report_id}", users::delete)
}

#[derive(Deserialize)]
struct Query {
    dir: Option<Dir>,
    user_id: Option<OwnedUserId>,
    room_id: Option<OwnedRoomId>,
    event_sender_user_id: Option<OwnedUserId>,
}

/// `GET /v1/event_reports`: the newest first unless asked otherwise.
async fn list(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    let mut reports = api.rooms.all_reports().await?;
    reports.retain(|(_, report)| {
        report.event.is_some()
            && query.user_id.as_ref().is_none_or(|user| report.reporter == *user)
            && query.room_id.as_ref().is_none_or(|room| report.room.as_ref() == Some(room))
    });
    if query.dir != Some(Dir::Forward) {
        reports.reverse();
    }
    let mut wanted = Vec::new();
    if let Some(by) = &query.event_sender_user_id {
        for (id, report) in reports {
            if sender(&api, &report).await?.as_ref() == Some(by) {
                wanted.push((id, report));
            }
        }
    } else {
        wanted = reports;
    }
    let total = wanted.len();
    let (mut shown, mut rooms) = (Vec::new(), HashMap::new());
    for (id, report) in page.of(wanted) {
        shown.push(summary(&api, id, &report, &mut rooms).await?);
    }
    let mut answer = json!({ "event_reports": shown, "total": total });
    if let Some(next) = page.next(total) {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}

async fn sender(api: &Api, report: &Report) -> Result<Option<OwnedUserId>> {
    let Some(event) = api.rooms.reported_event(report).await? else { return Ok(None) };
    let event: Value = serde_json::from_str(event.get()).unwrap_or_default();
    Ok(event["sender"].as_str().and_then(|sender| sender.try_into().ok()))
}

/// A report with what helps to place it. `rooms` remembers rooms that were looked up before.
async fn summary(
    api: &Api,
    id: u64,
    report: &Report,
    rooms: &mut HashMap<OwnedRoomId, Option<Listed>>,
) -> Result<Value> {
    let mut shown = json!({
        "id": id, "received_ts": report.at, "room_id": report.room, "event_id": report.event,
        "user_id": report.reporter, "reason": report.reason, "score": null,
        "sender": sender(api, report).await?, "name": null, "canonical_alias": null,
    });
    if let Some(room) = &report.room {
        let known = match rooms.get(room) {
            Some(known) => known.clone(),
            None => api.rooms.described(room).await?,
        };
        if let Some(listed) = &known {
            shown["name"] = json!(listed.name);
            shown["canonical_alias"] = json!(listed.canonical_alias);
        }
        rooms.insert(room.clone(), known);
    }
    Ok(shown)
}
