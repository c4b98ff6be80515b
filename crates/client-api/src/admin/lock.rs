//! `GET` and `PUT /admin/lock/{userId}`: whether an account is locked.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::admin::{is_user_locked, lock_user};
use serde_json::json;

use super::{moderated, not_oneself, noted};
use crate::{error::Result, requester::Requester};

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<is_user_locked::v1::Request>,
) -> Result<Ruma<is_user_locked::v1::Response>> {
    let user = moderated(&accounts, &requester, &request.user_id).await?;
    Ok(Ruma(is_user_locked::v1::Response::new(user.locked)))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<lock_user::v1::Request>,
) -> Result<Ruma<lock_user::v1::Response>> {
    moderated(&accounts, &requester, &request.user_id).await?;
    not_oneself(requester.user(), &request.user_id)?;
    let what = noted("lock", &request.user_id, json!({ "locked": request.locked }));
    let change = accounts.update_user(&request.user_id, |user| user.locked = request.locked);
    let user = accounts.audit().around(requester.user(), what, change).await?;
    Ok(Ruma(lock_user::v1::Response::new(user.locked)))
}
