//! The one parser of e-mail addresses: what it gives is what is matched, stored, mailed and shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// Longest address accepted, in bytes (RFC 5321 §4.5.3.1.3, without the angle brackets).
const MAX_BYTES: usize = 254;
/// Longest part before the `@`, in bytes (RFC 5321 §4.5.3.1.1).
const MAX_LOCAL_BYTES: usize = 64;

/// An e-mail address: ASCII, lower case, one `@`, a dot-atom before it and a plain host name behind it.
///
/// Stricter than RFC 5322 on purpose. Quoted parts, comments, routes, display names, address literals and
/// non-ASCII text have no use in an administration, and each of them is a way for two programs to read
/// one text as two addresses: that is how the allow-list of Tchap was passed on its first day in 2019.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Email {
    text: String,
    at: usize,
}

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmail {
    /// More than 254 bytes, or more than 64 before the `@`.
    #[error("the address is too long")]
    TooLong,
    /// No `@`, or several.
    #[error("an address has exactly one @")]
    NotOneAt,
    /// Something before the `@` that is not a letter, a digit or one of `._-+'=&`, or a misplaced dot.
    #[error("the part before the @ has a character that is not accepted")]
    Local,
    /// Not a full host name: labels of letters, digits and inner hyphens, the last one not a number.
    #[error("the part behind the @ is not a domain name")]
    Domain,
}

impl Email {
    /// Parses and folds to lower case. Nothing is trimmed or repaired.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        if text.len() > MAX_BYTES {
            return Err(InvalidEmail::TooLong);
        }
        let (local, domain) = text.split_once('@').ok_or(InvalidEmail::NotOneAt)?;
        if domain.contains('@') {
            return Err(InvalidEmail::NotOneAt);
        }
        if local.len() > MAX_LOCAL_BYTES {
            return Err(InvalidEmail::TooLong);
        }
        if !is_dot_atom(local) {
            return Err(InvalidEmail::Local);
        }
        if !is_domain(domain) {
            return Err(InvalidEmail::Domain);
        }
        Ok(Self { text: text.to_ascii_lowercase(), at: local.len() })
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`.
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// What stands behind the `@`.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }
}

fn is_dot_atom(local: &str) -> bool {
    let is_atom = |atom: &str| {
        !atom.is_empty() && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-+'=&".contains(&b))
    };
    local.split('.').all(is_atom)
}

/// Whether `name` is a host name of at least two labels that no one can take for an address literal.
pub(crate) fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.contains('.')
        && name.split('.').all(is_label)
        && !last.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.text
    }
}

impl std::str::FromStr for Email {
    type Err = InvalidEmail;
    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for Email {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Email, InvalidEmail};

    #[test]
    fn ordinary_addresses_are_folded_to_lower_case() {
        for (text, parsed) in [
            ("jean.martin@dinum.gouv.fr", "jean.martin@dinum.gouv.fr"),
            ("Jean.Martin@DINUM.GOUV.FR", "jean.martin@dinum.gouv.fr"),
            ("o'neil+astreinte@interieur.gouv.fr", "o'neil+astreinte@interieur.gouv.fr"),
            ("a_b-c=d&e@x9-y.example", "a_b-c=d&e@x9-y.example"),
            ("1@2.fr", "1@2.fr"),
            ("a@xn--prfet-bsa.fr", "a@xn--prfet-bsa.fr"),
        ] {
            assert_eq!(Email::parse(text).map(|email| email.to_string()), Ok(parsed.to_owned()), "{text}");
        }
    }

    #[test]
    fn parts() {
        let email = Email::parse("Jean@Dinum.gouv.fr").unwrap();
        assert_eq!((email.local(), email.domain()), ("jean", "dinum.gouv.fr"));
    }

    #[test]
    fn several_or_no_at_signs() {
        for text in [
            "user@attacker.tld@legit.gouv.fr",
            "fs0c131y@protonmail.com@presidence@elysee.fr",
            "a@@gouv.fr",
            "gouv.fr",
            "",
            "a\u{ff20}gouv.fr",
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail::NotOneAt), "{text}");
        }
    }

    #[test]
    fn hostile_forms_before_the_at() {
        for text in [
            "@gouv.fr",
            ".a@gouv.fr",
            "a.@gouv.fr",
            "a..b@gouv.fr",
            " a@gouv.fr",
            "\ta@gouv.fr",
            "a @gouv.fr",
            "a\n@gouv.fr",
            "a\r\nBcc: b@gouv.fr",
            "a\0@gouv.fr",
            "a(comment)@gouv.fr",
            "\"a\"@gouv.fr",
            "\"a b\"@gouv.fr",
            "evil.tld!a@gouv.fr",
            "a%evil.tld@gouv.fr",
            "<a@gouv.fr>",
            "Jean <jean@gouv.fr>",
            "a,b@gouv.fr",
            "a;b@gouv.fr",
            "a:b@gouv.fr",
            "a\\b@gouv.fr",
            "é@gouv.fr",
            "а@gouv.fr",
            "a\u{200b}@gouv.fr",
            "a`id`@gouv.fr",
            "a|b@gouv.fr",
            "a/b@gouv.fr",
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail::Local), "{text:?}");
        }
    }

    #[test]
    fn quoted_and_listed_addresses_with_a_second_at() {
        for text in [
            "<a@b> c@gouv.fr",
            "\"a@b\"@gouv.fr",
            "a@gouv.fr,b@x.fr",
            "a@gouv.fr;b@x.fr",
            "a@gouv.fr b@x.fr",
            "a@b(@gouv.fr)",
            "@evil.tld:a@gouv.fr",
            "@evil.tld,@relay.tld:a@gouv.fr",
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail::NotOneAt), "{text:?}");
        }
    }

    #[test]
    fn hostile_forms_behind_the_at() {
        for text in [
            "a@",
            "a@gouv",
            "a@localhost",
            "a@gouv.fr.",
            "a@.gouv.fr",
            "a@gouv..fr",
            "a@gouv.fr ",
            "a@ gouv.fr",
            "a@gouv.fr\n",
            "a@gouv.fr\r\nBcc:x",
            "a@gouv.fr\0",
            "a@gouv.fr\t",
            "a@gouv.fr(evil.tld)",
            "a@(evil.tld)gouv.fr",
            "a@gouv.fr>",
            "a@-gouv.fr",
            "a@gouv-.fr",
            "a@g_ouv.fr",
            "a@127.0.0.1",
            "a@[127.0.0.1]",
            "a@[IPv6:::1]",
            "a@gouv.fr:25",
            "a@gouv.fr/x",
            "a@gouv%2efr",
            "a@goüv.fr",
            "a@gоuv.fr",
            "a@gouv\u{3002}fr",
            "a@gouv.fr\u{200b}",
            "a@gouv.fr,x",
            "a@gouv.fr;x",
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail::Domain), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let local = "l".repeat(64);
        let domain = format!("{}.{}.fr", "d".repeat(63), "e".repeat(63));
        assert!(Email::parse(&format!("{local}@{domain}")).is_ok());
        assert_eq!(Email::parse(&format!("l{local}@{domain}")), Err(InvalidEmail::TooLong));
        assert_eq!(Email::parse(&format!("a@{}.fr", "d".repeat(64))), Err(InvalidEmail::Domain));
        let long = format!("{local}@{}fr", format!("{}.", "d".repeat(61)).repeat(3));
        assert_eq!(long.len(), 253);
        assert!(Email::parse(&long).is_ok());
        assert!(Email::parse(&format!("{long}rr")).is_err());
        assert_eq!(Email::parse(&"a".repeat(100_000)), Err(InvalidEmail::TooLong));
    }

    #[test]
    fn stored_addresses_are_parsed_again() {
        assert!(serde_json::from_str::<Email>("\"a@b@gouv.fr\"").is_err());
        let email: Email = serde_json::from_str("\"A@gouv.fr\"").unwrap();
        assert_eq!(serde_json::to_string(&email).unwrap(), "\"a@gouv.fr\"");
    }

    #[test]
    fn a_mutated_address_is_one_of_one_domain_or_refused() {
        chappe_fuzz::Fuzz::of(env!("CARGO_MANIFEST_DIR"), "email").run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            match Email::parse(&text) {
                Ok(email) => {
                    assert_eq!(email.as_str(), text.to_ascii_lowercase());
                    assert_eq!(format!("{}@{}", email.local(), email.domain()), email.as_str());
                    assert_eq!(text.matches('@').count(), 1);
                    assert!(
                        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@._-+'=&".contains(&byte))
                    );
                    assert!(email.as_str().len() <= 254);
                    "an address".to_owned()
                }
                Err(error) => error.to_string(),
            }
        });
    }
}
