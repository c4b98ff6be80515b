//! `PUT`, `GET` and `DELETE /user/{userId}/account_data/{type}`.

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, Scope};
use chappe_web::{Arguments, Ruma};
use ruma::{
    OwnedUserId,
    api::client::config::{get_global_account_data, set_global_account_data},
};
use serde_json::{Value, json, value::RawValue};

use crate::{error::Result, requester::Requester};

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<set_global_account_data::v3::Request>,
) -> Result<Ruma<set_global_account_data::v3::Response>> {
    requester.must_be(&request.user_id)?;
    let (kind, content) = (request.event_type.to_string(), request.data.json());
    accounts.set_account_data(requester.user(), Scope::Global, &kind, content).await?;
    Ok(Ruma(set_global_account_data::v3::Response::new()))
}

pub(super) async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Arguments((user, kind)): Arguments<(OwnedUserId, String)>,
) -> Result<Json<Value>> {
    requester.must_be(&user)?;
    accounts.delete_account_data(requester.user(), Scope::Global, &kind).await?;
    Ok(Json(json!({})))
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_global_account_data::v3::Request>,
) -> Result<Json<Box<RawValue>>> {
    requester.must_be(&request.user_id)?;
    let kind = request.event_type.to_string();
    let content = accounts.account_data(&accounts.read(), requester.user(), Scope::Global, &kind).await?;
    Ok(Json(content.ok_or_else(|| chappe_web::Error::not_found("No such account data"))?))
}
