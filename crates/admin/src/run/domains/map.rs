//! `domains map`: which homeserver serves which address.

use chappe_identity::{Email, MapBook, MapEntry, MapPattern, MapTarget, Whom};
use serde_json::json;

use super::Answer;
use crate::{Error, MapVerb, import, verb::Target};

pub(super) async fn run(map: &MapBook, verb: MapVerb) -> Result<Answer, Error> {
    match verb {
        MapVerb::Add { whom, target } => {
            let whom = parsed(&whom)?;
            map.put(&whom, &kept(target.clone())).await?;
            Ok(Answer::line(format!("{whom} belongs to {}", target.hs), json!({ "whom": whom.to_string() })))
        }
        MapVerb::Remove { whom } => {
            let whom = parsed(&whom)?;
            if !map.remove(&whom).await? {
                return Err(Error::NotFound(whom.to_string()));
            }
            Ok(Answer::line(format!("{whom} removed"), json!({ "whom": whom.to_string() })))
        }
        MapVerb::AddPattern { regex, target, place } => {
            let said = format!("{regex} belongs to {}", target.hs);
            let pattern = MapPattern { regex, target: kept(target) };
            map.put_pattern(&pattern, place).await?;
            Ok(Answer::line(said, json!({ "regex": pattern.regex })))
        }
        MapVerb::RemovePattern { regex } => {
            if !map.remove_pattern(&regex).await? {
                return Err(Error::NotFound(regex));
            }
            Ok(Answer::line(format!("{regex} removed"), json!({ "regex": regex })))
        }
        MapVerb::List => {
            let lines = map.list().await?;
            let data = lines.iter().map(|line| match line {
                MapEntry::Entry(whom, target) => json!({ "whom": whom.to_string(), "target": target }),
                MapEntry::Pattern(place, MapPattern { regex, target }) => {
                    json!({ "place": place, "regex": regex, "target": target })
                }
            });
            Ok(Answer { lines: lines.iter().map(shown).collect(), data: data.collect() })
        }
        MapVerb::Check { address } => {
            let email = Email::parse(&address).map_err(|error| Error::Invalid(error.to_string()))?;
            let found = map.map();
            let found = found.target(&email);
            let said = match found {
                Some((target, by)) => format!("{email} belongs to {}, by {by}", told(target)),
                None => format!("{email} belongs nowhere"),
            };
            let (target, by) = found.unzip();
            Ok(Answer::line(said, json!({ "address": email, "target": target, "by": by })))
        }
        MapVerb::Import { text } => {
            let (entries, patterns) = map.import(&text).await?;
            let said = format!("the map has {entries} addresses and {patterns} patterns now");
            Ok(Answer::line(said, json!({ "entries": entries, "patterns": patterns })))
        }
        MapVerb::Merge { text, dry_run } => Ok(import::domains(map, &text, dry_run).await?.answer()),
        MapVerb::Export => {
            let yaml = map.export().await?;
            Ok(Answer { lines: yaml.lines().map(str::to_owned).collect(), data: json!({ "yaml": yaml }) })
        }
    }
}

fn parsed(whom: &str) -> Result<Whom, Error> {
    whom.parse().map_err(|error: chappe_identity::InvalidRule| Error::Invalid(error.to_string()))
}

fn kept(target: Target) -> MapTarget {
    let Target { hs, shadow_hs, requires_invite } = target;
    MapTarget { hs, shadow_hs, requires_invite }
}

fn told(target: &MapTarget) -> String {
    let condition = if target.requires_invite { " on invitation" } else { "" };
    format!("{}{condition}", target.hs)
}

fn shown(line: &MapEntry) -> String {
    match line {
        MapEntry::Entry(whom, target) => format!("{:40} {}", whom.to_string(), told(target)),
        MapEntry::Pattern(place, pattern) => {
            format!("{place:3} {:36} {}", pattern.regex, told(&pattern.target))
        }
    }
}
