//! `POST` and `GET /room_keys/version`: a new backup, and the current one.

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::backup::create_backup_version::v3::{Request, Response};
use serde_json::Value;

use super::version::{Algorithm, shown};
use crate::{error::Result, requester::Requester};

pub(super) async fn create(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let backup = Algorithm::parse(request.algorithm.json())?;
    let version = accounts.create_backup(requester.user(), &backup.algorithm, &backup.auth_data).await?;
    Ok(Ruma(Response::new(version)))
}

pub(super) async fn latest(State(accounts): State<Accounts>, requester: Requester) -> Result<Json<Value>> {
    shown(accounts.backup(requester.user(), None).await?)
}
