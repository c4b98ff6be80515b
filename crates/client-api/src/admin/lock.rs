//! `GET` and `PUT /admin/lock/{userId}`: whether an account is locked.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::admin::{is_user_locked, lock_user};
use serde_json::json;

use super::{not_oneself, noted, open_account};
use crate::{error::Result, requester::Requester};

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<is_user_locked::v1::Request>,
) -> Result<Ruma<is_user_locked::v1::Response>> {
    requester.must_be_admin()?;
    let user = open_account(&accounts, &request.user_id).await?;
    Ok(Ruma(is_user_locked::v1::Response::new(user.locked)))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<lock_user::v1::Request>,
) -> Result<Ruma<lock_user::v1::Response>> {
    requester.must_be_admin()?;
    not_oneself(requester.user(), &request.user_id)?;
    open_account(&accounts, &request.user_id).await?;
    let what = noted("lock", &request.user_id, json!({ "locked": request.locked }));
    let change = accounts.update_user(&request.user_id, |user| user.locked = request.locked);
    let user = accounts.audit().around(requester.user(), what, change).await?;
    Ok(Ruma(lock_user::v1::Response::new(user.locked)))
}
