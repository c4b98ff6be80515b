//! `GET` and `PUT /admin/suspend/{userId}`: whether an account is suspended.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::admin::{is_user_suspended, suspend_user};
use serde_json::json;

use super::{moderated, not_oneself, noted};
use crate::{error::Result, requester::Requester};

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<is_user_suspended::v1::Request>,
) -> Result<Ruma<is_user_suspended::v1::Response>> {
    let user = moderated(&accounts, &requester, &request.user_id).await?;
    Ok(Ruma(is_user_suspended::v1::Response::new(user.suspended)))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<suspend_user::v1::Request>,
) -> Result<Ruma<suspend_user::v1::Response>> {
    moderated(&accounts, &requester, &request.user_id).await?;
    not_oneself(requester.user(), &request.user_id)?;
    let what = noted("suspend", &request.user_id, json!({ "suspended": request.suspended }));
    let change = accounts.update_user(&request.user_id, |user| user.suspended = request.suspended);
    let user = accounts.audit().around(requester.user(), what, change).await?;
    Ok(Ruma(suspend_user::v1::Response::new(user.suspended)))
}
