//! The map as a file of the form `info.yaml`: exact addresses, then ordered patterns.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use chappe_store::identity_service::{MapPattern, MapTarget};
use ruma::OwnedServerName;
use serde::Deserialize;

use super::{ALL, InvalidPattern, MOST_ENTRIES, MOST_PATTERNS, book::Contents, compile};
use crate::{Email, Error, Rule};

/// Longest file, in bytes: the longest that is written of a map has hardly more.
const MAX_FILE: usize = 16 << 20;
/// How the pattern of a domain begins, and what follows where its sub-domains are meant.
const DOMAIN: &str = ".*@";
const BELOW: &str = r".*\.";

/// Why a file is not a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMap {
    /// Not YAML, or not of this form.
    #[error("not of the form of info.yaml: {0}")]
    Form(String),
    /// A key of `entries` is not an address.
    #[error("entries: {0:?} is not an address")]
    Address(String),
    /// A pattern cannot be used.
    #[error("patterns: {0}")]
    Pattern(#[from] InvalidPattern),
    /// An item of `patterns` is not one pattern with where it leads.
    #[error("patterns: item {0} is not one pattern")]
    Item(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    medium: Media,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Media {
    email: Mails,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mails {
    entries: Option<BTreeMap<String, Target>>,
    patterns: Option<Vec<BTreeMap<String, Target>>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    hs: OwnedServerName,
    #[serde(default)]
    shadow_hs: Option<OwnedServerName>,
    #[serde(default)]
    requires_invite: bool,
}

impl From<Target> for MapTarget {
    fn from(target: Target) -> Self {
        let Target { hs, shadow_hs, requires_invite } = target;
        Self { hs, shadow_hs, requires_invite }
    }
}

/// Reads a file. An address that is no address, or a pattern that is none, is refused: never repaired, never left out.
pub(super) fn read(yaml: &str) -> Result<Contents, Error> {
    if yaml.len() > MAX_FILE {
        return Err(Error::MapTooLarge);
    }
    let form = |error: serde_saphyr::Error| InvalidMap::Form(error.to_string());
    let file: File = serde_saphyr::from_str(yaml).map_err(form)?;
    let mut contents = Contents::default();
    for (address, target) in file.medium.email.entries.unwrap_or_default() {
        let email = Email::parse(&address).map_err(|_| InvalidMap::Address(address))?;
        contents.entries.push((email.to_string(), target.into()));
    }
    let mut domains = Domains::default();
    for (index, item) in file.medium.email.patterns.unwrap_or_default().into_iter().enumerate() {
        let mut pairs = item.into_iter();
        let (Some((regex, target)), None) = (pairs.next(), pairs.next()) else {
            return Err(InvalidMap::Item(index + 1).into());
        };
        if let Some(key) = domains.next(&regex) {
            contents.entries.push((key, target.into()));
            continue;
        }
        compile(&regex).map_err(InvalidMap::from)?;
        contents.patterns.push(MapPattern { regex, target: target.into() });
    }
    if contents.entries.len() > MOST_ENTRIES || contents.patterns.len() > MOST_PATTERNS {
        return Err(Error::MapTooLarge);
    }
    Ok(contents)
}

/// Patterns that are domains, as [`write`] puts them in front of all others: they are no patterns again, so that a file that
/// was written can be read, however many there are. The first pattern that is none, or that would win over a more precise
/// one, ends them.
#[derive(Default)]
struct Domains {
    seen: BTreeSet<String>,
    /// Labels of the last domain whose sub-domains were named.
    labels: Option<usize>,
    over: bool,
}

impl Domains {
    /// The key of the entry that a pattern stands for.
    fn next(&mut self, regex: &str) -> Option<String> {
        let key = domain(regex).filter(|key| !self.over && !self.seen.contains(key));
        let fits = key.as_ref().is_some_and(|key| match (key.strip_prefix("*."), self.labels) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(parent), Some(last)) => labels(parent) <= last,
        });
        self.over = !fits;
        let key = key.filter(|_| fits)?;
        if let Some(parent) = key.strip_prefix("*.") {
            self.labels = Some(labels(parent));
        }
        self.seen.insert(key.clone());
        Some(key)
    }
}

fn labels(domain: &str) -> usize {
    domain.split('.').count()
}

/// The domain, or `*.` and the domain, whose pattern this is.
fn domain(regex: &str) -> Option<String> {
    let escaped = regex.strip_prefix(DOMAIN)?;
    let key = match escaped.strip_prefix(BELOW) {
        Some(escaped) => format!("*.{}", escaped.replace('\\', "")),
        None => escaped.replace('\\', ""),
    };
    let known = key.parse::<Rule>().is_ok_and(|rule| rule.to_string() == key) && !key.contains('@');
    (known && pattern_of(&key) == regex).then_some(key)
}

/// What stands for a domain, or for `*.` and a domain, in a file.
fn pattern_of(key: &str) -> String {
    match key.strip_prefix("*.") {
        Some(parent) => format!("{DOMAIN}{BELOW}{}", regex::escape(parent)),
        None => format!("{DOMAIN}{}", regex::escape(key)),
    }
}

/// Writes a file. Domains become patterns in front of all others, the more precise ones first.
pub(super) fn write(contents: &Contents) -> String {
    let mut text = String::from("medium:\n  email:\n    entries:");
    let (addresses, domains): (Vec<_>, Vec<_>) =
        contents.entries.iter().partition(|(key, _)| key.contains('@'));
    text.push_str(if addresses.is_empty() { " {}\n" } else { "\n" });
    for (address, target) in addresses {
        let _ = writeln!(text, "      {}: {}", quoted(address), shown(target));
    }
    let (mut exact, mut below, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (key, target) in domains {
        match key.strip_prefix("*.") {
            _ if key == ALL => all.push((".*".to_owned(), target)),
            Some(parent) => below.push((labels(parent), pattern_of(key), target)),
            None => exact.push((pattern_of(key), target)),
        }
    }
    below.sort_by_key(|(labels, ..)| std::cmp::Reverse(*labels));
    let below = below.into_iter().map(|(_, pattern, target)| (pattern, target));
    let patterns = contents.patterns.iter().map(|pattern| (pattern.regex.clone(), &pattern.target));
    let lines: Vec<_> = exact.into_iter().chain(below).chain(patterns).chain(all).collect();
    text.push_str(if lines.is_empty() { "    patterns: []\n" } else { "    patterns:\n" });
    for (regex, target) in lines {
        let _ = writeln!(text, "      - {}: {}", quoted(&regex), shown(target));
    }
    text
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn shown(target: &MapTarget) -> String {
    let mut text = format!("{{hs: {}", quoted(target.hs.as_str()));
    if let Some(shadow) = &target.shadow_hs {
        let _ = write!(text, ", shadow_hs: {}", quoted(shadow.as_str()));
    }
    if target.requires_invite {
        text.push_str(", requires_invite: true");
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::{super::MapLayer, read, write};
    use crate::Email;

    const FILE: &str = r"
medium:
  email:
    entries:
      John.Doe@example.fr: {hs: agent.x.tchap.gouv.fr, requires_invite: true}
      o'neil@example.fr: {hs: agent.y.tchap.gouv.fr, shadow_hs: agent.z.tchap.gouv.fr}
    patterns:
      - '.*@(.*\.|)dinum\.gouv\.fr': {hs: agent.dinum.tchap.gouv.fr}
      - '.*': {hs: agent.externe.tchap.gouv.fr, requires_invite: true}
";

    fn compiled(text: &str) -> MapLayer {
        let contents = read(text).unwrap();
        MapLayer::new(contents.entries, contents.patterns).unwrap()
    }

    #[test]
    fn a_file_is_read_and_written_back() {
        let map = compiled(FILE);
        for (address, hs, requires_invite) in [
            ("john.doe@example.fr", "agent.x.tchap.gouv.fr", true),
            ("a@dinum.gouv.fr", "agent.dinum.tchap.gouv.fr", false),
            ("a@b.dinum.gouv.fr", "agent.dinum.tchap.gouv.fr", false),
            ("a@evildinum.gouv.fr", "agent.externe.tchap.gouv.fr", true),
        ] {
            let email = Email::parse(address).unwrap();
            let (target, _) = map.target(&email).unwrap();
            assert_eq!((target.hs.as_str(), target.requires_invite), (hs, requires_invite), "{address}");
        }
        let contents = read(FILE).unwrap();
        assert_eq!(read(&write(&contents)).unwrap(), contents);
    }

    #[test]
    fn domains_are_exported_as_patterns_with_the_same_answers() {
        let mut contents = read(FILE).unwrap();
        let target = |hs: &str| serde_json::from_value(serde_json::json!({ "hs": hs })).unwrap();
        for (key, hs) in
            [("gouv.fr", "d.fr"), ("*.gouv.fr", "s.fr"), ("*.x.gouv.fr", "n.fr"), ("*", "all.fr")]
        {
            contents.entries.push((key.to_owned(), target(hs)));
        }
        contents.patterns.pop();
        let before = MapLayer::new(contents.entries.clone(), contents.patterns.clone()).unwrap();
        let after = compiled(&write(&contents));
        for address in [
            "a@gouv.fr",
            "a@b.gouv.fr",
            "a@b.x.gouv.fr",
            "a@x.gouv.fr",
            "a@dinum.gouv.fr",
            "a@evilgouv.fr",
            "a@gouv.fr.evil.tld",
            "john.doe@example.fr",
        ] {
            let email = Email::parse(address).unwrap();
            let hs = |map: &MapLayer| map.target(&email).map(|(target, _)| target.hs.clone());
            assert_eq!(hs(&before), hs(&after), "{address}");
        }
    }

    /// As many domains as there may be.
    #[test]
    fn what_was_exported_is_read_back_however_many_domains_there_are() {
        let mut contents = read(FILE).unwrap();
        let target = contents.entries[0].1.clone();
        for n in 0..19_000 {
            let below = if n % 2 == 0 { "" } else { "*." };
            contents.entries.push((format!("{below}d{n}.commune-{}.example.fr", n % 7), target.clone()));
        }
        contents.entries.push(("*.example.fr".to_owned(), target));
        contents.entries.sort_by(|a, b| a.0.cmp(&b.0));
        let mut again = read(&write(&contents)).unwrap();
        again.entries.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(again.entries.len(), contents.entries.len());
        assert_eq!(again, contents);
    }

    #[test]
    fn a_pattern_behind_others_stays_where_it_is() {
        let file = |patterns: &[&str]| {
            let lines: Vec<String> =
                patterns.iter().map(|pattern| format!("      - '{pattern}': {{hs: a.fr}}\n")).collect();
            format!("medium:\n  email:\n    entries: {{}}\n    patterns:\n{}", lines.concat())
        };
        for (patterns, entries) in [
            // A domain that a pattern in front of it hides; a domain behind sub-domains; the nearer behind the farther; twice.
            (&[r"a.*", r".*@x\.fr"][..], 0),
            (&[r".*@.*\.y\.fr", r".*@x\.fr"], 1),
            (&[r".*@.*\.x\.fr", r".*@.*\.a\.x\.fr"], 1),
            (&[r".*@x\.fr", r".*@x\.fr", r".*@y\.fr"], 1),
            (&[r".*@x.fr", r".*@y\.fr"], 0),
            (&[r".*@X\.fr"], 0),
            (&[r".*@x\.fr", r".*@y\.fr", r".*@.*\.a\.x\.fr", r".*@.*\.x\.fr", r".*"], 4),
        ] {
            let contents = read(&file(patterns)).unwrap();
            assert_eq!(
                (contents.entries.len(), contents.patterns.len()),
                (entries, patterns.len() - entries),
                "{patterns:?}"
            );
        }
    }

    #[test]
    fn what_is_not_a_map_is_refused_whole() {
        let with = |entries: &str, patterns: &str| {
            format!("medium:\n  email:\n    entries: {entries}\n    patterns: {patterns}\n")
        };
        assert!(read(&with("{}", "[]")).is_ok());
        assert!(read("medium:\n  email:\n    entries:\n    patterns:\n").is_ok());
        for wrong in [
            String::new(),
            "medium: {msisdn: {}}".to_owned(),
            with("{'a@evil.tld@gouv.fr': {hs: a.fr}}", "[]"),
            with("{'a@x.fr': {hs: 'not a server'}}", "[]"),
            with("{'a@x.fr': {requires_invite: true}}", "[]"),
            with("{'a@x.fr': {hs: a.fr, other: 1}}", "[]"),
            with("{}", "['.*']"),
            with("{}", "[{'a': {hs: a.fr}, 'b': {hs: b.fr}}]"),
            with("{}", "[{'a)|(b': {hs: a.fr}}]"),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
        // Names that stand for names that stand for names: refused or read, never unfolded without end.
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let before = format!("*a{}, ", n - 1).repeat(9);
            let line = format!("a{n}: &a{n} [{}]\n", before.trim_end_matches(", "));
            bomb.push_str(&line);
        }
        assert!(read(&bomb).is_err());
    }
}
