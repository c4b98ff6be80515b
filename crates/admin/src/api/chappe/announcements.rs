//! `POST /_chappe/admin/v1/announcements` and `GET …/{id}`: have the server say something to everybody, or to all whose
//! address is of some domains, in the background.

use axum::{Json, extract::State};
use chappe_web::{Arguments, Routes};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    api::{Administrator, Api, Body, Result, v1::Place as _},
    jobs::{Announce, Work},
};

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .post("/_chappe/admin/v1/announcements", start)
        .get("/_chappe/admin/v1/announcements/{announcement_id}", show)
}

#[derive(Deserialize)]
struct Request {
    content: Map<String, Value>,
    #[serde(default)]
    to: Vec<String>,
}

async fn start(
    State(api): State<Api>,
    administrator: Administrator,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    if !request.content.get("body").is_some_and(Value::is_string) {
        return Err(chappe_web::Error::invalid_param("content needs a body").into());
    }
    let work = Announce::new(&api.rooms, request.to, request.content)?;
    let by = Some(administrator.user().to_owned());
    let id = api.jobs.start(by, &Work::Announce(work)).await?;
    Ok(Json(json!({ "announcement_id": id })))
}

async fn show(State(api): State<Api>, Arguments(id): Arguments<String>) -> Result<Json<Value>> {
    let Some((job, Work::Announce(work))) = api.jobs.job(&id).await? else {
        return Err(chappe_web::Error::not_found("No such announcement").into());
    };
    Ok(Json(json!({
        "status": job.progress, "to": work.to, "told": work.told, "failed": work.failed, "error": job.error,
    })))
}
