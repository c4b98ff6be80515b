//! `GET`, `PUT` and `DELETE /pushrules/global/{kind}/{ruleId}`.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::{
    api::client::push::{PushRule, delete_pushrule, get_pushrule, set_pushrule},
    push::{AnyPushRule, AnyPushRuleRef, RuleKind},
};

use crate::{error::Result, requester::Requester};

/// A kind as a path names it: one also by the name that it has in the ruleset, which ruma does not know.
pub(super) fn known(kind: RuleKind) -> RuleKind {
    if kind.as_str() == "postcontent" { RuleKind::PostContent } else { kind }
}

/// One rule of the requester.
pub(super) async fn find(
    accounts: &Accounts,
    requester: &Requester,
    kind: RuleKind,
    rule_id: &str,
) -> Result<AnyPushRule> {
    let rules = accounts.push_rules(&accounts.read(), requester.user()).await?;
    let rule = rules.get(known(kind), rule_id).map(AnyPushRuleRef::to_owned);
    Ok(rule.ok_or_else(|| chappe_web::Error::not_found("No such push rule"))?)
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_pushrule::v3::Request>,
) -> Result<Ruma<get_pushrule::v3::Response>> {
    let rule = find(&accounts, &requester, request.kind, &request.rule_id).await?;
    let rule = match rule {
        // ruma's own way from any rule has none for this kind.
        AnyPushRule::PostContent(rule) => PushRule::from(rule),
        rule => PushRule::from(rule),
    };
    Ok(Ruma(get_pushrule::v3::Response::new(rule)))
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
    accounts.delete_push_rule(requester.user(), known(request.kind), &request.rule_id).await?;
    Ok(Ruma(delete_pushrule::v3::Response::new()))
}

#[cfg(test)]
mod tests {
    use super::{RuleKind, known};

    #[test]
    fn a_kind_is_known_by_the_name_that_it_has_in_the_ruleset_too() {
        let ours = "io.element.msc4306.postcontent";
        for (name, kind) in [("postcontent", ours), (ours, ours), ("room", "room"), ("x", "x")] {
            assert_eq!(known(RuleKind::from(name)).as_str(), kind);
        }
    }
}
