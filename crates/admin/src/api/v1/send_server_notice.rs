//! `POST /v1/send_server_notice` and `PUT /v1/send_server_notice/{txnId}`: have the server say something to a user.

use axum::{Json, extract::State};
use chappe_rooms::Notice;
use chappe_web::{Arguments, Routes};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Place as _;
use crate::api::{Administrator, Api, Body, Result};

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .post("/_synapse/admin/v1/send_server_notice", send)
        .put("/_synapse/admin/v1/send_server_notice/{txn_id}", send_once)
}

#[derive(Deserialize)]
struct Request {
    user_id: OwnedUserId,
    content: Map<String, Value>,
    #[serde(rename = "type", default = "message")]
    kind: String,
    state_key: Option<String>,
}

fn message() -> String {
    "m.room.message".to_owned()
}

async fn send(State(api): State<Api>, Body(request): Body<Request>) -> Result<Json<Value>> {
    notify(&api, request, None).await
}

/// Transactions are each administrator's own.
async fn send_once(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(txn): Arguments<String>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    let txn = format!("{}/{txn}", administrator.user());
    notify(&api, request, Some(txn)).await
}

async fn notify(api: &Api, request: Request, txn: Option<String>) -> Result<Json<Value>> {
    api.account(&request.user_id).await?;
    let Request { user_id, content, kind, state_key } = request;
    let notice = Notice { kind: kind.into(), state_key, content };
    let event = api.rooms.notify(&user_id, notice, txn.map(Into::into)).await?;
    Ok(Json(json!({ "event_id": event })))
}
