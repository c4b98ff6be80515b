//! `GET` and `PUT /pushrules/global/{kind}/{ruleId}/enabled`.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::push::{get_pushrule_enabled, set_pushrule_enabled};

use super::rule::{find, known};
use crate::{error::Result, requester::Requester};

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_pushrule_enabled::v3::Request>,
) -> Result<Ruma<get_pushrule_enabled::v3::Response>> {
    let rule = find(&accounts, &requester, request.kind, &request.rule_id).await?;
    Ok(Ruma(get_pushrule_enabled::v3::Response::new(rule.enabled())))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<set_pushrule_enabled::v3::Request>,
) -> Result<Ruma<set_pushrule_enabled::v3::Response>> {
    let kind = known(request.kind);
    accounts.enable_push_rule(requester.user(), kind, &request.rule_id, request.enabled).await?;
    Ok(Ruma(set_pushrule_enabled::v3::Response::new()))
}
