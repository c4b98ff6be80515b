//! `GET` and `DELETE /v1/event_reports/{reportId}`: one report with the event, and dealing with it.

use std::collections::HashMap;

use axum::{Json, extract::State};
use chappe_web::Arguments;
use serde_json::{Value, json};

use super::summary;
use crate::api::{Api, Result};

pub(super) async fn show(State(api): State<Api>, Arguments(id): Arguments<u64>) -> Result<Json<Value>> {
    let found = api.rooms.report_at(id).await?.filter(|report| report.event.is_some());
    let report = found.ok_or_else(not_found)?;
    let mut shown = summary(&api, id, &report, &mut HashMap::new()).await?;
    shown["event_json"] = json!(api.rooms.reported_event(&report).await?);
    Ok(Json(shown))
}

pub(super) async fn delete(State(api): State<Api>, Arguments(id): Arguments<u64>) -> Result<Json<Value>> {
    let found = api.rooms.report_at(id).await?.filter(|report| report.event.is_some());
    found.ok_or_else(not_found)?;
    api.rooms.delete_report(id).await?;
    Ok(Json(json!({})))
}

fn not_found() -> chappe_web::Error {
    chappe_web::Error::not_found("Event report not found")
}
