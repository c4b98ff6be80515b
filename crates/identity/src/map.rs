//! The map: which homeserver serves an address; pure.
//!
//! The most precise rule wins: the address itself, its domain, the nearest domain above it, then the patterns in their
//! order, then what is said for all. What the signed list of the network says is asked first, with all of its lines, and this
//! server's own lines only where it says nothing.

mod book;
mod file;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_store::identity_service::{MapPattern, MapTarget};
use regex::bytes::{Regex, RegexBuilder};
use ruma::{OwnedServerName, ServerName};

pub use self::{
    book::{MapBook, MapEntry},
    file::InvalidMap,
};
use crate::{Email, Error, InvalidRule, Rule};

/// What stands for all addresses.
const ALL: &str = "*";
/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1000;
/// Memory that one compiled pattern may take, in bytes.
const MAX_COMPILED: usize = 256 << 10;
/// Most entries, and most patterns.
pub(crate) const MOST_ENTRIES: usize = 20_000;
pub(crate) const MOST_PATTERNS: usize = 500;

/// Why a pattern is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a pattern: {why}")]
pub struct InvalidPattern {
    /// Its beginning.
    pub pattern: String,
    /// What is wrong with it.
    pub why: String,
}

/// For whom an entry of the map stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// An address, a domain or its sub-domains.
    Rule(Rule),
    /// Everybody whom nothing else names.
    All,
}

impl std::str::FromStr for Whom {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        if text == ALL { Ok(Self::All) } else { text.parse().map(Self::Rule) }
    }
}

impl std::fmt::Display for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::All => f.write_str(ALL),
        }
    }
}

/// A pattern that was compiled: matched in linear time, against whole addresses, whatever the case.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    regex: Regex,
    target: MapTarget,
}

/// Lines of a map, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct MapLayer {
    entries: BTreeMap<String, MapTarget>,
    patterns: Vec<Pattern>,
}

/// Where addresses belong: what the network says, and where it says nothing, what this server's operators say.
#[derive(Clone, Debug, Default)]
pub struct Map {
    network: Arc<MapLayer>,
    local: MapLayer,
}

impl MapLayer {
    /// What a network says of addresses: by address, domain, `*.` and a domain, or `*` for all; and by patterns in their
    /// order. All of it is right or nothing is taken.
    pub fn read(entries: &BTreeMap<String, MapTarget>, patterns: &[MapPattern]) -> Result<Self, Error> {
        if entries.len() > MOST_ENTRIES || patterns.len() > MOST_PATTERNS {
            return Err(Error::MapTooLarge);
        }
        for key in entries.keys() {
            let whom: Whom = key.parse().map_err(|_| InvalidMap::Address(key.clone()))?;
            if whom.to_string() != *key {
                return Err(InvalidMap::Address(key.clone()).into());
            }
        }
        Ok(Self::new(entries.clone(), patterns.to_vec()).map_err(InvalidMap::from)?)
    }

    fn new(
        entries: impl IntoIterator<Item = (String, MapTarget)>,
        patterns: impl IntoIterator<Item = MapPattern>,
    ) -> Result<Self, InvalidPattern> {
        let compiled = patterns.into_iter().map(|pattern| {
            let regex = compile(&pattern.regex)?;
            Ok(Pattern { text: pattern.regex, regex, target: pattern.target })
        });
        Ok(Self { entries: entries.into_iter().collect(), patterns: compiled.collect::<Result<_, _>>()? })
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.patterns.is_empty()
    }

    fn targets(&self) -> impl Iterator<Item = &MapTarget> {
        self.entries.values().chain(self.patterns.iter().map(|pattern| &pattern.target))
    }

    fn target(&self, email: &Email) -> Option<(&MapTarget, &str)> {
        let named = |key: &str| self.entries.get_key_value(key).map(|(key, target)| (target, key.as_str()));
        if let Some(found) = named(email.as_str()).or_else(|| named(email.domain())) {
            return Some(found);
        }
        let mut rest = email.domain();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(found) = named(&format!("*.{parent}")) {
                return Some(found);
            }
            rest = parent;
        }
        let address = email.as_str().as_bytes();
        let pattern = self.patterns.iter().find(|pattern| pattern.regex.is_match(address));
        pattern.map(|pattern| (&pattern.target, pattern.text.as_str())).or_else(|| named(ALL))
    }
}

impl Map {
    /// Whether nothing is mapped: the server knows no network but itself.
    pub fn is_empty(&self) -> bool {
        self.network.is_empty() && self.local.is_empty()
    }

    fn targets(&self) -> impl Iterator<Item = &MapTarget> {
        self.network.targets().chain(self.local.targets())
    }

    /// The homeservers that it names: those of the network.
    pub fn servers(&self) -> BTreeSet<OwnedServerName> {
        let named = self.targets().flat_map(|target| [Some(&target.hs), target.shadow_hs.as_ref()]);
        named.flatten().cloned().collect()
    }

    /// Whether it names a homeserver.
    pub fn names(&self, server: &ServerName) -> bool {
        self.targets().any(|target| is_for(target, server))
    }

    /// Whether a server takes somebody without an invitation. An invitation lets in only if such a server's user sent it:
    /// else the invited would invite each other.
    pub fn may_invite(&self, server: &ServerName) -> bool {
        self.targets().any(|target| !target.requires_invite && is_for(target, server))
    }

    /// Where an address belongs, and by which entry or pattern.
    pub fn target(&self, email: &Email) -> Option<(&MapTarget, &str)> {
        self.network.target(email).or_else(|| self.local.target(email))
    }
}

fn is_for(target: &MapTarget, server: &ServerName) -> bool {
    target.hs == server || target.shadow_hs.as_deref() == Some(server)
}

/// Compiles a pattern so that it matches whole addresses only. Addresses are ASCII, and so are the classes of a pattern.
fn compile(text: &str) -> Result<Regex, InvalidPattern> {
    let refused = |why: String| InvalidPattern { pattern: text.chars().take(100).collect(), why };
    if text.is_empty() || text.len() > MAX_PATTERN {
        return Err(refused(format!("it has between 1 and {MAX_PATTERN} bytes")));
    }
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.unicode(false).case_insensitive(true).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED);
        builder.build().map_err(|error| refused(error.to_string()))
    };
    // By itself first: what is wrong alone, such as `a)|(b`, could be right between the anchors and slip past them.
    build(text)?;
    build(&format!(r"\A(?:{text})\z"))
}

#[cfg(test)]
mod tests {
    use chappe_store::identity_service::{MapPattern, MapTarget};
    use ruma::ServerName;

    use super::{Map, MapLayer, compile};
    use crate::Email;

    fn to(hs: &str) -> MapTarget {
        MapTarget { hs: ServerName::parse(hs).unwrap(), shadow_hs: None, requires_invite: false }
    }

    fn map(entries: &[(&str, &str)], patterns: &[(&str, &str)]) -> Map {
        let entries = entries.iter().map(|(rule, hs)| ((*rule).to_owned(), to(hs)));
        let patterns =
            patterns.iter().map(|(regex, hs)| MapPattern { regex: (*regex).to_owned(), target: to(hs) });
        Map { local: MapLayer::new(entries, patterns).unwrap(), ..Map::default() }
    }

    fn hs(map: &Map, address: &str) -> Option<String> {
        map.target(&Email::parse(address).unwrap()).map(|(target, _)| target.hs.to_string())
    }

    #[test]
    fn the_most_precise_entry_wins() {
        let entries = [
            ("jean@x.fr", "address.fr"),
            ("x.fr", "domain.fr"),
            ("*.fr.example", "far.fr"),
            ("*.x.fr.example", "near.fr"),
            ("*", "all.fr"),
        ];
        let map = map(&entries, &[(r".*@y\.fr", "pattern.fr")]);
        for (address, expected) in [
            ("JEAN@X.fr", "address.fr"),
            ("jeanne@x.fr", "domain.fr"),
            ("a@b.x.fr.example", "near.fr"),
            ("a@x.fr.example", "far.fr"),
            ("a@Y.fr", "pattern.fr"),
            ("a@z.fr", "all.fr"),
            ("a@x.fr.evil.tld", "all.fr"),
        ] {
            assert_eq!(hs(&map, address).as_deref(), Some(expected), "{address}");
        }
        assert!(!map.is_empty());
    }

    #[test]
    fn patterns_match_whole_addresses_in_their_order() {
        let patterns = [
            (r".*@(.*\.|)dinum\.gouv\.fr", "dinum.fr"),
            (r".*@(.*\.|)gouv\.fr", "gouv.fr"),
            (r"a|b", "half.fr"),
            (r".*@[A-Z]+\.example", "upper.fr"),
        ];
        let map = map(&[], &patterns);
        for (address, expected) in [
            ("a@dinum.gouv.fr", Some("dinum.fr")),
            ("a@x.DINUM.gouv.fr", Some("dinum.fr")),
            ("a@gouv.fr", Some("gouv.fr")),
            ("a@evildinum.gouv.fr", Some("gouv.fr")),
            ("a@evilgouv.fr", None),
            ("a@gouv.fr.evil.tld", None),
            ("gouv.fr@evil.tld", None),
            ("a@lower.example", Some("upper.fr")),
        ] {
            assert_eq!(hs(&map, address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn the_network_is_asked_first_whatever_is_said_here() {
        let entries = [("*.x.fr".to_owned(), to("network.fr"))].into();
        let network = MapLayer::read(&entries, &[]).unwrap().into();
        let map = Map { network, ..map(&[("jean@a.x.fr", "local.fr"), ("y.fr", "local.fr")], &[]) };
        assert_eq!(
            hs(&map, "jean@a.x.fr").as_deref(),
            Some("network.fr"),
            "however precise the local line is"
        );
        assert_eq!(hs(&map, "jean@y.fr").as_deref(), Some("local.fr"));
        assert_eq!(map.servers().len(), 2);
        for wrong in ["X.fr", "a@b@c.fr", "**.fr", ""] {
            assert!(MapLayer::read(&[(wrong.to_owned(), to("a.fr"))].into(), &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_cannot_escape_its_anchors_or_eat_memory() {
        for wrong in ["", "a)|(b", "(?x)a #", "(", r"\x", "(a{1000}){1000}", "(?:a"] {
            assert!(compile(wrong).is_err(), "{wrong:?}");
        }
        assert!(compile(&"a".repeat(1001)).is_err());
        assert!(!compile("(?m)^a@x.fr$").unwrap().is_match(b"a@x.fr\nevil"));
        assert!(!compile("a@x.fr|").unwrap().is_match(b"other@x.fr"));
    }
}
