//! `GET /pushrules/` and `GET /pushrules/global/`.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::push::{get_pushrules_all, get_pushrules_global_scope};

use crate::{error::Result, requester::Requester};

pub(super) async fn all(
    State(accounts): State<Accounts>,
    requester: Requester,
) -> Result<Ruma<get_pushrules_all::v3::Response>> {
    let rules = accounts.push_rules(&accounts.read(), requester.user()).await?;
    Ok(Ruma(get_pushrules_all::v3::Response::new(rules)))
}

pub(super) async fn global(
    State(accounts): State<Accounts>,
    requester: Requester,
) -> Result<Ruma<get_pushrules_global_scope::v3::Response>> {
    let rules = accounts.push_rules(&accounts.read(), requester.user()).await?;
    Ok(Ruma(get_pushrules_global_scope::v3::Response::new(rules)))
}
