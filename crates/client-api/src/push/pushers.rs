//! `GET /pushers` and `POST /pushers/set`.

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, OtherUsers};
use chappe_web::Ruma;
use ruma::api::client::push::set_pusher::v3::{PusherAction, Request, Response};
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn all(State(accounts): State<Accounts>, requester: Requester) -> Result<Json<Value>> {
    let pushers = accounts.pushers(&accounts.read(), requester.user()).await?;
    let pushers: Vec<Value> = pushers.into_iter().map(|info| info.pusher).collect();
    Ok(Json(json!({ "pushers": pushers })))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    match request.action {
        PusherAction::Post(data) => {
            let others = if data.append { OtherUsers::Keep } else { OtherUsers::Replace };
            let device = requester.device_id.as_deref();
            accounts.set_pusher(requester.user(), device, &data.pusher, others).await?;
        }
        PusherAction::Delete(ids) => accounts.delete_pusher(requester.user(), &ids).await?,
        _ => return Err(chappe_web::Error::invalid_param("Unknown kind of pusher").into()),
    }
    Ok(Ruma(Response::new()))
}
