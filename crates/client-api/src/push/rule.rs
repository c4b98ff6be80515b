//! `GET`, `PUT` and `DELETE /pushrules/global/{kind}/{ruleId}`.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::{
    api::client::push::{PushRule, delete_pushrule, get_pushrule, set_pushrule},
    push::{AnyPushRule, AnyPushRuleRef, RuleKind},
};

use crate::{error::Result, requester::Requester};

/// One rule of the requester.
pub(super) async fn find(
    accounts: &Accounts,
    requester: &Requester,
    kind: RuleKind,
    rule_id: &str,
) -> Result<AnyPushRule> {
    let rules = accounts.push_rules(&accounts.read(), requester.user()).await?;
    let rule = rules.get(kind, rule_id).map(AnyPushRuleRef::to_owned);
    Ok(rule.ok_or_else(|| chappe_web::Error::not_found("No such push rule"))?)
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_pushrule::v3::Request>,
) -> Result<Ruma<get_pushrule::v3::Response>> {
    let rule = find(&accounts, &requester, request.kind, &request.rule_id).await?;
    Ok(Ruma(get_pushrule::v3::Response::new(PushRule::from(rule))))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<set_pushrule::v3::Request>,
) -> Result<Ruma<set_pushrule::v3::Response>> {
    let (after, before) = (request.after.as_deref(), request.before.as_deref());
    accounts.set_push_rule(requester.user(), request.rule, after, before).await?;
    Ok(Ruma(set_pushrule::v3::Response::new()))
}

pub(super) async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<delete_pushrule::v3::Request>,
) -> Result<Ruma<delete_pushrule::v3::Response>> {
    accounts.delete_push_rule(requester.user(), request.kind, &request.rule_id).await?;
    Ok(Ruma(delete_pushrule::v3::Response::new()))
}
