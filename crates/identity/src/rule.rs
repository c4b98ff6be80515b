//! One rule of the allow-list and the set that a snapshot holds; pure.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::email::{Email, is_domain};

/// Who a rule lets in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// `dinum.gouv.fr`: addresses of exactly this domain.
    Domain(String),
    /// `*.gouv.fr`: addresses of every sub-domain at any depth, the domain itself not included.
    SubDomains(String),
    /// `jean@example.fr`: this address alone.
    Address(Email),
}

/// The text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a rule: write a domain (example.gouv.fr), its sub-domains (*.example.gouv.fr) or one address"
)]
pub struct InvalidRule(pub String);

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let invalid = || InvalidRule(text.chars().take(300).collect());
        if text.contains('@') {
            return Email::parse(text).map(Self::Address).map_err(|_| invalid());
        }
        let folded = text.to_ascii_lowercase();
        let (domain, rule): (&str, fn(String) -> Self) = match folded.strip_prefix("*.") {
            Some(domain) => (domain, Self::SubDomains),
            None => (&folded, Self::Domain),
        };
        if is_domain(domain) { Ok(rule(domain.to_owned())) } else { Err(invalid()) }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => f.write_str(domain),
            Self::SubDomains(domain) => write!(f, "*.{domain}"),
            Self::Address(email) => email.fmt(f),
        }
    }
}

/// A set of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeSet<Rule>);

impl Rules {
    /// The rule that lets `email` in: the most precise one.
    pub fn matching(&self, email: &Email) -> Option<Rule> {
        let exact = [Rule::Address(email.clone()), Rule::Domain(email.domain().to_owned())];
        if let Some(rule) = exact.into_iter().find(|rule| self.0.contains(rule)) {
            return Some(rule);
        }
        let mut rest = email.domain();
        while let Some((_, parent)) = rest.split_once('.') {
            let rule = Rule::SubDomains(parent.to_owned());
            if self.0.contains(&rule) {
                return Some(rule);
            }
            rest = parent;
        }
        None
    }

    /// All rules in order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Rule, Rules};
    use crate::Email;

    fn check(rules: &[&str], address: &str) -> Option<String> {
        let rules: Rules = rules.iter().map(|text| text.parse().unwrap()).collect();
        rules.matching(&Email::parse(address).unwrap()).map(|rule| rule.to_string())
    }

    #[test]
    fn an_empty_list_lets_nobody_in() {
        assert_eq!(check(&[], "a@gouv.fr"), None);
    }

    #[test]
    fn a_domain_is_matched_whole() {
        let rules = ["gouv.fr", "Dinum.Gouv.FR"];
        assert_eq!(check(&rules, "a@GOUV.fr").as_deref(), Some("gouv.fr"));
        assert_eq!(check(&rules, "a@dinum.gouv.fr").as_deref(), Some("dinum.gouv.fr"));
        for outside in
            ["a@gouv.fr.evil.tld", "a@evilgouv.fr", "a@x.gouv.fr", "a@gouv.fr-evil.tld", "gouv.fr@evil.tld"]
        {
            assert_eq!(check(&rules, outside), None, "{outside}");
        }
    }

    #[test]
    fn a_sub_domain_rule_takes_any_depth_but_not_the_domain_itself() {
        let rules = ["*.gouv.fr"];
        assert_eq!(check(&rules, "a@dinum.gouv.fr").as_deref(), Some("*.gouv.fr"));
        assert_eq!(check(&rules, "a@x.y.gouv.fr").as_deref(), Some("*.gouv.fr"));
        for outside in ["a@gouv.fr", "a@evilgouv.fr", "a@x.gouv.fr.evil.tld"] {
            assert_eq!(check(&rules, outside), None, "{outside}");
        }
    }

    #[test]
    fn one_address() {
        assert_eq!(check(&["jean@x.fr"], "Jean@x.fr").as_deref(), Some("jean@x.fr"));
        assert_eq!(check(&["jean@x.fr"], "jeanne@x.fr"), None);
        assert_eq!(check(&["jean@x.fr"], "jean+a@x.fr"), None);
    }

    #[test]
    fn what_is_not_a_rule() {
        for text in [
            "",
            "*",
            "*.fr",
            "fr",
            "*gouv.fr",
            "x.*.fr",
            "**.gouv.fr",
            ".gouv.fr",
            "a b.fr",
            "@gouv.fr",
            "a@b@c.fr",
            "*@gouv.fr",
            "*.gouv.fr\n",
            "gouv.fr.",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text:?}");
        }
    }
}
