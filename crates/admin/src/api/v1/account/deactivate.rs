//! `POST /v1/deactivate/{userId}`: close an account and leave its rooms.

use axum::{Json, extract::State};
use chappe_accounts::Erase;
use chappe_web::Arguments;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Body, Result};

#[derive(Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    erase: bool,
}

pub(super) async fn handler(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    let erase = if request.erase { Erase::Yes } else { Erase::No };
    api.accounts.deactivate(&user, erase).await?;
    // What a stop interrupts is gone on with when the server starts again.
    api.rooms.leave_all(user);
    Ok(Json(json!({ "id_server_unbind_result": "success" })))
}
