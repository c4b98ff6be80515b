//! `/v1/user_reports`: reports of users.

use axum::{Json, extract::State};
use chappe_store::reports::Report;
use chappe_web::{Arguments, Parameters};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Dir, Page, Result};

#[derive(Deserialize)]
pub(super) struct Query {
    dir: Option<Dir>,
    user_id: Option<OwnedUserId>,
    target_user_id: Option<OwnedUserId>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    let mut reports = api.rooms.all_reports().await?;
    reports.retain(|(_, report)| {
        report.user.is_some()
            && query.user_id.as_ref().is_none_or(|user| report.reporter == *user)
            && query.target_user_id.as_ref().is_none_or(|user| report.user.as_ref() == Some(user))
    });
    if query.dir != Some(Dir::Forward) {
        reports.reverse();
    }
    let total = reports.len();
    let reports: Vec<Value> = page.of(reports).iter().map(|(id, report)| shown(*id, report)).collect();
    let mut answer = json!({ "user_reports": reports, "total": total });
    if let Some(next) = page.next(total) {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}

pub(super) async fn show(State(api): State<Api>, Arguments(id): Arguments<u64>) -> Result<Json<Value>> {
    Ok(Json(shown(id, &found(&api, id).await?)))
}

pub(super) async fn delete(State(api): State<Api>, Arguments(id): Arguments<u64>) -> Result<Json<Value>> {
    found(&api, id).await?;
    api.rooms.delete_report(id).await?;
    Ok(Json(json!({})))
}

async fn found(api: &Api, id: u64) -> Result<Report> {
    let found = api.rooms.report_at(id).await?.filter(|report| report.user.is_some());
    Ok(found.ok_or_else(|| chappe_web::Error::not_found("User report not found"))?)
}

fn shown(id: u64, report: &Report) -> Value {
    json!({
        "id": id, "received_ts": report.at, "user_id": report.reporter,
        "target_user_id": report.user, "reason": report.reason,
    })
}
