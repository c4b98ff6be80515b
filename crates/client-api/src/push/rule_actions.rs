//! `GET` and `PUT /pushrules/global/{kind}/{ruleId}/actions`.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::push::{get_pushrule_actions, set_pushrule_actions};

use super::rule::{find, known};
use crate::{error::Result, requester::Requester};

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_pushrule_actions::v3::Request>,
) -> Result<Ruma<get_pushrule_actions::v3::Response>> {
    let rule = find(&accounts, &requester, request.kind, &request.rule_id).await?;
    Ok(Ruma(get_pushrule_actions::v3::Response::new(rule.actions().to_vec())))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<set_pushrule_actions::v3::Request>,
) -> Result<Ruma<set_pushrule_actions::v3::Response>> {
    let kind = known(request.kind);
    accounts.set_push_actions(requester.user(), kind, &request.rule_id, request.actions).await?;
    Ok(Ruma(set_pushrule_actions::v3::Response::new()))
}
