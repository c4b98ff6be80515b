//! `GET`, `PUT` and `DELETE /room_keys/version/{version}`.

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, BackupInfo};
use chappe_web::Ruma;
use ruma::api::client::backup::{delete_backup_version, get_backup_info, update_backup_version};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{error::Result, requester::Requester};

/// What a client says of a backup.
#[derive(Deserialize)]
pub(super) struct Algorithm {
    pub(super) algorithm: String,
    pub(super) auth_data: Box<RawValue>,
}

impl Algorithm {
    pub(super) fn parse(json: &RawValue) -> Result<Self> {
        serde_json::from_str(json.get()).map_err(|e| chappe_web::Error::bad_json(e.to_string()).into())
    }
}

/// The version that a change of a backup may name.
#[derive(Deserialize)]
struct Named {
    version: Option<String>,
}

pub(super) fn shown(backup: Option<BackupInfo>) -> Result<Json<Value>> {
    let info = backup.ok_or_else(|| chappe_web::Error::not_found("No current backup version"))?;
    Ok(Json(json!({
        "algorithm": info.algorithm, "auth_data": info.auth_data, "version": info.version,
        "count": info.count, "etag": info.etag,
    })))
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_info::v3::Request>,
) -> Result<Json<Value>> {
    shown(accounts.backup(requester.user(), Some(&request.version)).await?)
}

pub(super) async fn update(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<update_backup_version::v3::Request>,
) -> Result<Ruma<update_backup_version::v3::Response>> {
    let json = request.algorithm.json();
    let backup = Algorithm::parse(json)?;
    let named = serde_json::from_str::<Named>(json.get());
    let named = named.map_err(|error| chappe_web::Error::bad_json(error.to_string()))?;
    if named.version.is_some_and(|version| version != request.version) {
        return Err(chappe_web::Error::invalid_param("The body names another version").into());
    }
    let (version, algorithm) = (&request.version, &backup.algorithm);
    accounts.update_backup(requester.user(), version, algorithm, &backup.auth_data).await?;
    Ok(Ruma(update_backup_version::v3::Response::new()))
}

pub(super) async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<delete_backup_version::v3::Request>,
) -> Result<Ruma<delete_backup_version::v3::Response>> {
    accounts.delete_backup(requester.user(), &request.version).await?;
    Ok(Ruma(delete_backup_version::v3::Response::new()))
}
