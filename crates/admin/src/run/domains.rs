//! `domains`: who may sign up with an e-mail address.

mod map;

use chappe_identity::{Email, ListedRule, Rule};
use serde_json::json;

use super::{Answer, Deps};
use crate::{Domains, Error};

pub(super) async fn run(deps: &Deps, verb: Domains) -> Result<Answer, Error> {
    let list = &deps.allow_list;
    match verb {
        Domains::Add { rule, note } => {
            let rule = parsed(&rule)?;
            let added = list.add(&rule, &note).await?;
            let said =
                if added { format!("{rule} added") } else { format!("{rule} was on the list already") };
            Ok(Answer::line(said, json!({ "rule": rule.to_string(), "added": added })))
        }
        Domains::Remove { rule } => {
            let rule = parsed(&rule)?;
            if !list.remove(&rule).await? {
                return Err(Error::NotFound(rule.to_string()));
            }
            Ok(Answer::line(format!("{rule} removed"), json!({ "rule": rule.to_string() })))
        }
        Domains::List => {
            let rules = list.list().await?;
            let lines = rules.iter().map(shown).collect();
            let data = rules.iter().map(|listed| {
                json!({ "rule": listed.rule.to_string(), "added_at": listed.added_at, "note": listed.note })
            });
            Ok(Answer { lines, data: data.collect() })
        }
        Domains::Check { address } => {
            let email = Email::parse(&address).map_err(|error| Error::Invalid(error.to_string()))?;
            let rule = list.check(&email).map(|rule| rule.to_string());
            let said = match &rule {
                Some(rule) => format!("{email} may sign up, by the rule {rule}"),
                None => format!("{email} may not sign up"),
            };
            Ok(Answer::line(said, json!({ "address": email, "rule": rule })))
        }
        Domains::Import { text } => {
            let imported = list.import(&text).await?;
            let said = format!("{} added, {} were on the list already", imported.added, imported.known);
            Ok(Answer::line(said, json!({ "added": imported.added, "known": imported.known })))
        }
        Domains::Map(verb) => map::run(&deps.map, verb).await,
    }
}

fn parsed(rule: &str) -> Result<Rule, Error> {
    rule.parse().map_err(|error: chappe_identity::InvalidRule| Error::Invalid(error.to_string()))
}

fn shown(listed: &ListedRule) -> String {
    let rule = listed.rule.to_string();
    if listed.note.is_empty() { rule } else { format!("{rule:40} {}", listed.note) }
}
