//! Registrations as YAML texts: read strictly, so that a mistake is found at the start and not by its consequences.
//!
//! Specification: application service API, "Registration".

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use chappe_rules::appservice::{Namespace, Namespaces, Registration, Registrations, Secret, Wants};
use chappe_world::Guard;
use ruma::{OwnedUserId, ServerName, UserId};
use serde::{Deserialize, de::IgnoredAny};
use url::{Host, Url};

/// The longest id, in bytes.
const LONGEST_ID: usize = 255;
/// Keys of the specification and old names of theirs. Others must have a dot in them, as the keys of vendors do.
const KEYS: [&str; 10] = [
    "id",
    "url",
    "as_token",
    "hs_token",
    "sender_localpart",
    "namespaces",
    "rate_limited",
    "protocols",
    "receive_ephemeral",
    "push_ephemeral",
];

/// A registration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct WrongRegistration {
    /// The file.
    pub file: String,
    /// What is wrong with it, a sentence without a full stop.
    pub problem: String,
}

/// A registration as it is written.
#[derive(Deserialize)]
struct Written {
    id: String,
    #[serde(deserialize_with = "Option::deserialize")]
    url: Option<String>,
    as_token: String,
    hs_token: String,
    sender_localpart: String,
    namespaces: WrittenNamespaces,
    #[serde(default)]
    rate_limited: Option<bool>,
    #[serde(default)]
    protocols: Option<Vec<String>>,
    #[serde(default)]
    receive_ephemeral: Option<bool>,
    #[serde(default)]
    push_ephemeral: Option<bool>,
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    old_push_ephemeral: Option<bool>,
    #[serde(default, rename = "org.matrix.msc3202")]
    encryption: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNamespaces {
    #[serde(default)]
    users: Option<Vec<WrittenNamespace>>,
    #[serde(default)]
    aliases: Option<Vec<WrittenNamespace>>,
    #[serde(default)]
    rooms: Option<Vec<WrittenNamespace>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNamespace {
    regex: String,
    exclusive: bool,
    /// Of old drafts, without meaning.
    #[serde(default, rename = "group_id")]
    _group_id: Option<IgnoredAny>,
}

/// Reads the registrations of a server, each with the name of its file. Ids, tokens and senders are told apart, and
/// an address that `guard` would refuse is refused here.
pub fn read_registrations(
    files: &[(String, String)],
    server: &ServerName,
    guard: &Guard,
) -> Result<Registrations, WrongRegistration> {
    let mut seen = Seen::default();
    let read = files.iter().map(|(file, text)| {
        let read = read(text, server, guard).and_then(|read| seen.add(&read).map(|()| read));
        read.map_err(|problem| WrongRegistration { file: file.clone(), problem })
    });
    Ok(Registrations::new(read.collect::<Result<Vec<_>, _>>()?))
}

/// What must not be there twice.
#[derive(Default)]
struct Seen(BTreeSet<(&'static str, String)>);

impl Seen {
    fn add(&mut self, read: &Registration) -> Result<(), String> {
        for (what, value) in [
            ("id", read.id.as_str()),
            ("as_token", read.as_token.reveal()),
            ("sender_localpart", read.sender.localpart()),
        ] {
            if !self.0.insert((what, value.to_owned())) {
                return Err(format!("`{what}` is that of another registration"));
            }
        }
        Ok(())
    }
}

fn read(text: &str, server: &ServerName, guard: &Guard) -> Result<Registration, String> {
    #[expect(clippy::zero_sized_map_values, reason = "what is behind the keys does not matter")]
    let keys: BTreeMap<String, IgnoredAny> =
        serde_saphyr::from_str(text).map_err(|error| sentence(&error))?;
    if let Some(unknown) = keys.keys().find(|key| !KEYS.contains(&key.as_str()) && !key.contains('.')) {
        return Err(format!("`{unknown}` is not a key of a registration"));
    }
    let written: Written = serde_saphyr::from_str(text).map_err(|error| sentence(&error))?;
    let old_ephemeral =
        written.old_push_ephemeral.unwrap_or_default() || written.push_ephemeral.unwrap_or_default();
    let wants = Wants {
        ephemeral: written.receive_ephemeral.unwrap_or_default(),
        old_ephemeral,
        encryption: written.encryption.unwrap_or_default(),
    };
    let namespaces = Namespaces {
        users: namespaces("users", written.namespaces.users)?,
        aliases: namespaces("aliases", written.namespaces.aliases)?,
        rooms: namespaces("rooms", written.namespaces.rooms)?,
    };
    if written.as_token == written.hs_token {
        return Err("`as_token` and `hs_token` must not be the same".to_owned());
    }
    Ok(Registration {
        id: id(written.id)?,
        url: written.url.map(|url| address(&url, guard)).transpose()?.flatten(),
        as_token: token("as_token", written.as_token)?,
        hs_token: token("hs_token", written.hs_token)?,
        sender: sender(&written.sender_localpart, server)?,
        rate_limited: written.rate_limited.unwrap_or(true),
        wants,
        protocols: written.protocols.unwrap_or_default(),
        namespaces,
    })
}

/// The first line of what the parser says; those after it show the text, and with it tokens.
fn sentence(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn id(id: String) -> Result<String, String> {
    // The bar tells a service from its network where clients name both.
    if id.is_empty() || id.len() > LONGEST_ID || id.chars().any(|c| c.is_control() || c == '|') {
        return Err(format!("`id` must have 1 to {LONGEST_ID} bytes and neither `|` nor control characters"));
    }
    Ok(id)
}

fn token(name: &str, token: String) -> Result<Secret, String> {
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("`{name}` must have visible ASCII characters and no others"));
    }
    Ok(Secret::new(token))
}

fn sender(localpart: &str, server: &ServerName) -> Result<OwnedUserId, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
    let user = UserId::parse(format!("@{localpart}:{server}")).ok();
    user.filter(|_| !localpart.is_empty() && localpart.chars().all(fits)).ok_or_else(|| {
        "`sender_localpart` must have a-z, 0-9 and . _ = - / + only, without sigil and server".to_owned()
    })
}

fn namespaces(name: &str, written: Option<Vec<WrittenNamespace>>) -> Result<Vec<Namespace>, String> {
    let read = |(index, namespace): (usize, WrittenNamespace)| {
        Namespace::new(&namespace.regex, namespace.exclusive)
            .map_err(|error| format!("`namespaces.{name}.{index}.regex`: {}", error.replace('\n', " ")))
    };
    written.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

/// Where a service listens, without a slash at the end. An empty address is none.
fn address(written: &str, guard: &Guard) -> Result<Option<String>, String> {
    if written.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(written).map_err(|error| format!("`url`: {error}"))?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !matches!(url.scheme(), "http" | "https") || !plain || url.password().is_some() {
        return Err("`url` must be an http or https address without user, query or fragment".to_owned());
    }
    let inner = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain("localhost")) => Some(IpAddr::from([127, 0, 0, 1])),
        Some(Host::Domain(_)) => None,
        None => return Err("`url` names no host".to_owned()),
    };
    if let Some(inner) = inner.filter(|inner| !guard.permits(*inner)) {
        return Err(format!("`url`: {inner} is not in `outbound.allowed_ranges` of the configuration"));
    }
    Ok(Some(url.as_str().trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use chappe_world::Guard;
    use ruma::{server_name, user_id};

    use super::{Registrations, read_registrations};

    const WHOLE: &str = r##"
id: irc
url: http://127.0.0.1:9999/bridge/
as_token: 30c05ae9
hs_token: 312df522
sender_localpart: _irc_bot
receive_ephemeral: true
rate_limited: false
protocols: [irc]
org.matrix.msc3202: true
com.example.anything: { more: [1, 2] }
namespaces:
  users:
    - { exclusive: true, regex: "@_irc_.*" }
  aliases:
    - { exclusive: false, regex: "#_irc_.*", group_id: "+old:a.fr" }
  rooms: []
"##;

    fn read(texts: &[&str]) -> Result<Registrations, String> {
        let files: Vec<_> =
            texts.iter().enumerate().map(|(i, text)| (format!("{i}.yaml"), (*text).to_owned())).collect();
        let guard = Guard::new(vec!["127.0.0.1/32".parse().unwrap()]);
        read_registrations(&files, server_name!("a.fr"), &guard).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_registration_is_read_whole() {
        let services = read(&[WHOLE]).unwrap();
        let irc = services.get("irc").unwrap();
        assert_eq!(irc.url.as_deref(), Some("http://127.0.0.1:9999/bridge"));
        assert_eq!((irc.as_token.reveal(), irc.hs_token.reveal()), ("30c05ae9", "312df522"));
        assert_eq!(irc.sender, user_id!("@_irc_bot:a.fr"));
        assert!(irc.wants.ephemeral && !irc.wants.old_ephemeral && irc.wants.encryption);
        assert!(!irc.rate_limited && irc.protocols == ["irc"]);
        assert!(irc.owns_user(user_id!("@_irc_ann:a.fr")));
    }

    #[test]
    fn a_service_may_want_nothing() {
        for url in ["url: null", "url:", "url: ''"] {
            let text = WHOLE.replace("url: http://127.0.0.1:9999/bridge/", url);
            assert_eq!(read(&[&text]).unwrap().get("irc").unwrap().url, None, "{url}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (right, wrong, said) in [
            ("id: irc", "id: 'a|b'", "0.yaml: `id` must have"),
            ("id: irc", "", "missing field `id`"),
            ("url: http://127.0.0.1:9999/bridge/", "", "missing field `url`"),
            ("url: http://127.0.0.1:9999/bridge/", "url: ftp://a.fr", "`url` must be an http or https"),
            ("url: http://127.0.0.1:9999/bridge/", "url: http://u:p@a.fr", "without user"),
            ("url: http://127.0.0.1:9999/bridge/", "url: http://10.0.0.1", "`outbound.allowed_ranges`"),
            ("hs_token: 312df522", "hs_token: 30c05ae9", "must not be the same"),
            ("hs_token: 312df522", "hs_token: 'a b'", "`hs_token` must have visible"),
            ("sender_localpart: _irc_bot", "sender_localpart: '@bot:a.fr'", "without sigil"),
            ("sender_localpart: _irc_bot", "sender_localpart: Bot", "a-z, 0-9"),
            ("receive_ephemeral: true", "recieve_ephemeral: true", "`recieve_ephemeral` is not a key"),
            ("rate_limited: false", "rate_limited: maybe", "0.yaml: "),
            ("  rooms: []", "  places: []", "places"),
            ("exclusive: true, ", "", "missing field `exclusive`"),
            ("\"@_irc_.*\"", "\"@(?=x)\"", "`namespaces.users.0.regex`"),
        ] {
            let text = WHOLE.replacen(right, wrong, 1);
            assert_ne!(text, WHOLE, "{right}");
            let problem = read(&[&text]).unwrap_err();
            assert!(problem.contains(said), "{wrong}: {problem}");
            assert!(!problem.contains("30c05ae9"), "no token is shown: {problem}");
        }
    }

    #[test]
    fn services_are_told_apart() {
        let other = |id: &str, token: &str, sender: &str| {
            let text = WHOLE.replace("id: irc\n", &format!("id: {id}\n"));
            text.replace("30c05ae9", token).replace("_irc_bot", sender)
        };
        assert_eq!(read(&[WHOLE, &other("xmpp", "abc", "_xmpp_bot")]).unwrap().len(), 2);
        for (text, said) in [
            (other("irc", "abc", "_xmpp_bot"), "1.yaml: `id` is that of another"),
            (other("xmpp", "30c05ae9", "_xmpp_bot"), "1.yaml: `as_token` is that of another"),
            (other("xmpp", "abc", "_irc_bot"), "1.yaml: `sender_localpart` is that of another"),
        ] {
            assert!(read(&[WHOLE, &text]).unwrap_err().contains(said), "{said}");
        }
    }
}
