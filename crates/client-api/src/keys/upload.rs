//! `POST /keys/upload`: the device's identity, one-time and fallback keys.

use axum::extract::State;
use chappe_accounts::{Accounts, KeyUpload};
use chappe_web::Ruma;
use ruma::api::client::keys::upload_keys::v3::{Request, Response};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    if request.device_keys.is_some() {
        limits.device(&requester)?;
    }
    let upload = KeyUpload {
        device_keys: request.device_keys,
        one_time_keys: request.one_time_keys,
        fallback_keys: request.fallback_keys,
    };
    let counts = accounts.upload_keys(requester.user(), requester.device()?, upload).await?;
    let counts = counts.one_time_keys.into_iter().map(|(algorithm, count)| (algorithm, count.into()));
    Ok(Ruma(Response::new(counts.collect())))
}
