//! `GET /v1/scheduled_tasks`: work for administrators that is to be done, is being done, or was.

use axum::{Json, extract::State};
use chappe_store::jobs::Progress;
use chappe_web::{Parameters, Routes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Place as _;
use crate::{
    api::{Api, Result},
    jobs::Work,
};

pub(super) fn routes() -> Routes<Api> {
    Routes::new().get("/_synapse/admin/v1/scheduled_tasks", handler)
}

#[derive(Deserialize)]
struct Query {
    action_name: Option<String>,
    resource_id: Option<String>,
    job_status: Option<Progress>,
    max_timestamp: Option<u64>,
}

async fn handler(State(api): State<Api>, Parameters(query): Parameters<Query>) -> Result<Json<Value>> {
    let mut tasks = Vec::new();
    for (id, job, work) in api.jobs.all().await? {
        let (action, resource) = named(&work);
        let wanted = query.action_name.as_ref().is_none_or(|name| name == action)
            && query.resource_id.as_ref().is_none_or(|wanted| *wanted == resource)
            && query.job_status.is_none_or(|status| status == job.progress)
            && query.max_timestamp.is_none_or(|at| job.created < at);
        if wanted {
            tasks.push(json!({
                "id": id, "action": action, "status": job.progress, "resource_id": resource,
                "timestamp_ms": job.ended.unwrap_or(job.created), "result": job.work, "error": job.error,
            }));
        }
    }
    Ok(Json(json!({ "scheduled_tasks": tasks })))
}

/// What a job is called, and what it is about.
fn named(work: &Work) -> (&'static str, String) {
    match work {
        Work::DeleteRoom(work) => ("shutdown_and_purge_room", work.room.to_string()),
        Work::PurgeHistory(work) => ("purge_history", work.room.to_string()),
        Work::RedactUser(work) => ("redact_all_events", work.user.to_string()),
        Work::Announce(work) => ("announce", work.to.join(" ")),
    }
}
