//! `/v1/federation/destinations`: how sending to other servers goes.

mod destination;
mod reset_connection;
mod rooms;

use axum::{Json, extract::State};
use chappe_federation::Destination;
use chappe_web::{Parameters, Routes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Place as _;
use crate::api::{Api, Dir, Page, Result, page::no_such_order};

pub(super) fn routes() -> Routes<Api> {
    let one = "/_synapse/admin/v1/federation/destinations/{destination}";
    Routes::new()
        .get("/_synapse/admin/v1/federation/destinations", list)
        .get(one, destination::handler)
        .get(&format!("{one}/rooms"), rooms::handler)
        .post(&format!("{one}/reset_connection"), reset_connection::handler)
}

#[derive(Deserialize)]
struct Query {
    dir: Option<Dir>,
    order_by: Option<String>,
    destination: Option<String>,
}

/// `GET /v1/federation/destinations`: every server that shares a room with this one or that something waits for.
async fn list(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    let mut found = known(&api).await?;
    found.retain(|one| query.destination.as_ref().is_none_or(|part| one.server.as_str().contains(part)));
    let now = api.world.now();
    match query.order_by.as_deref().unwrap_or("destination") {
        "destination" | "last_successful_stream_ordering" => {}
        "failure_ts" => found.sort_by_key(Destination::failing_since),
        "retry_last_ts" | "retry_interval" => {
            found.sort_by_key(|one| one.state.send_at().saturating_sub(now));
        }
        _ => return Err(no_such_order().into()),
    }
    if query.dir == Some(Dir::Backward) {
        found.reverse();
    }
    let total = found.len();
    let destinations: Vec<Value> = page.of(found).iter().map(|one| shown(one, now)).collect();
    let mut answer = json!({ "destinations": destinations, "total": total });
    if let Some(next) = page.next(total) {
        answer["next_token"] = next.to_string().into();
    }
    Ok(Json(answer))
}

/// The servers that this one has to do with.
async fn known(api: &Api) -> Result<Vec<Destination>> {
    Ok(chappe_federation::all_destinations(api.federation.network()).await?)
}

/// The last attempt is not remembered, the next one is: as the console shows it, the wait began at the first failure.
fn shown(one: &Destination, now: u64) -> Value {
    let failing_since = one.failing_since();
    let wait = failing_since.map_or(0, |_| one.state.send_at().saturating_sub(now));
    json!({
        "destination": one.server,
        "retry_last_ts": failing_since.unwrap_or(0),
        "retry_interval": wait,
        "failure_ts": failing_since,
        "last_successful_stream_ordering": null,
    })
}
