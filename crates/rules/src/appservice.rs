//! Application services: what their registrations say, and what they cover.
//!
//! Specification: application service API, "Registration".

use std::{fmt, sync::Arc};

use regex::{Regex, RegexBuilder};
use ruma::{OwnedUserId, RoomAliasId, RoomId, UserId};
use zeroize::Zeroizing;

/// The most a compiled expression may take, in bytes.
const EXPRESSION_LIMIT: usize = 1 << 20;

/// A token, which is never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps a token.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// The token itself, to be compared or sent and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Identifiers of one kind that belong to a service.
#[derive(Clone, Debug)]
pub struct Namespace {
    pattern: Regex,
    exclusive: bool,
}

impl Namespace {
    /// A namespace of everything that begins as `expression` says; matching takes time linear in the identifier. The
    /// error is a sentence.
    pub fn new(expression: &str, exclusive: bool) -> Result<Self, String> {
        let anchored = format!("^(?:{expression})");
        let pattern = RegexBuilder::new(&anchored).size_limit(EXPRESSION_LIMIT).build();
        pattern.map(|pattern| Self { pattern, exclusive }).map_err(|error| error.to_string())
    }

    /// The expression as it is matched.
    pub fn expression(&self) -> &str {
        self.pattern.as_str()
    }

    fn holds(&self, identifier: &str) -> bool {
        self.pattern.is_match(identifier)
    }
}

/// What belongs to a service.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    /// Users.
    pub users: Vec<Namespace>,
    /// Room aliases.
    pub aliases: Vec<Namespace>,
    /// Rooms.
    pub rooms: Vec<Namespace>,
}

/// What a service is told beside events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Typing, receipts and presence, as `ephemeral`.
    pub ephemeral: bool,
    /// The same as `de.sorunome.msc2409.ephemeral`.
    pub old_ephemeral: bool,
    /// To-device messages (MSC4203), device list changes and key counts (MSC3202).
    pub encryption: bool,
}

impl Wants {
    /// Whether it is told of typing, receipts and presence under either name.
    pub fn any_ephemeral(self) -> bool {
        self.ephemeral || self.old_ephemeral
    }
}

/// An application service as its registration describes it.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its id.
    pub id: String,
    /// Where it listens, without a slash at the end; none: it is told nothing.
    pub url: Option<String>,
    /// With this it proves itself to the server.
    pub as_token: Secret,
    /// With this the server proves itself to it.
    pub hs_token: Secret,
    /// Its own user, of this server.
    pub sender: OwnedUserId,
    /// Whether requests in the name of other users than `sender` are counted.
    pub rate_limited: bool,
    /// What it is told beside events.
    pub wants: Wants,
    /// Third-party networks it connects.
    pub protocols: Vec<String>,
    /// What belongs to it.
    pub namespaces: Namespaces,
}

impl PartialEq for Registration {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Registration {}

impl Registration {
    fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.sender.server_name()
    }

    /// Whether a user is one of the service's: its sender, or a user of this server in its namespace.
    pub fn covers_user(&self, user: &UserId) -> bool {
        let in_namespace = || self.namespaces.users.iter().any(|users| users.holds(user.as_str()));
        *user == self.sender || (self.is_local(user) && in_namespace())
    }

    /// Whether a user is the service's alone.
    pub fn owns_user(&self, user: &UserId) -> bool {
        let own = |users: &Namespace| users.exclusive && users.holds(user.as_str());
        *user == self.sender || (self.is_local(user) && self.namespaces.users.iter().any(own))
    }

    /// Whether a room alias is in the service's namespace.
    pub fn covers_alias(&self, alias: &RoomAliasId) -> bool {
        self.namespaces.aliases.iter().any(|aliases| aliases.holds(alias.as_str()))
    }

    /// Whether a room alias is the service's alone.
    pub fn owns_alias(&self, alias: &RoomAliasId) -> bool {
        let own = |aliases: &Namespace| aliases.exclusive && aliases.holds(alias.as_str());
        self.namespaces.aliases.iter().any(own)
    }

    /// Whether a room is in the service's namespace, by its id.
    pub fn covers_room(&self, room: &RoomId) -> bool {
        self.namespaces.rooms.iter().any(|rooms| rooms.holds(room.as_str()))
    }
}

/// All application services of a server: a handle, clones share it.
#[derive(Clone, Debug, Default)]
pub struct Registrations(Arc<[Arc<Registration>]>);

impl Registrations {
    /// These services, whose ids and tokens are told apart already.
    pub fn new(services: impl IntoIterator<Item = Registration>) -> Self {
        Self(services.into_iter().map(Arc::new).collect())
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Registration>> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One by its id.
    pub fn get(&self, id: &str) -> Option<&Arc<Registration>> {
        self.0.iter().find(|service| service.id == id)
    }

    /// Whether a user is one of any service's.
    pub fn cover_user(&self, user: &UserId) -> bool {
        self.0.iter().any(|service| service.covers_user(user))
    }

    /// Whether a user is kept for another service than `asking`.
    pub fn reserve_user(&self, user: &UserId, asking: Option<&Registration>) -> bool {
        self.0.iter().any(|service| Some(&**service) != asking && service.owns_user(user))
    }

    /// Whether a room alias is kept for another service than `asking`.
    pub fn reserve_alias(&self, alias: &RoomAliasId, asking: Option<&Registration>) -> bool {
        self.0.iter().any(|service| Some(&**service) != asking && service.owns_alias(alias))
    }
}

impl<'a> IntoIterator for &'a Registrations {
    type Item = &'a Arc<Registration>;
    type IntoIter = std::slice::Iter<'a, Arc<Registration>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, room_alias_id, room_id, user_id};

    use super::{Namespace, Namespaces, Registration, Registrations, Secret, Wants};

    fn service(id: &str, namespaces: Namespaces) -> Registration {
        Registration {
            id: id.to_owned(),
            url: None,
            as_token: Secret::new("as"),
            hs_token: Secret::new("hs"),
            sender: owned_user_id!("@bot:a.fr"),
            rate_limited: true,
            wants: Wants::default(),
            protocols: Vec::new(),
            namespaces,
        }
    }

    fn space(expression: &str, exclusive: bool) -> Vec<Namespace> {
        vec![Namespace::new(expression, exclusive).unwrap()]
    }

    #[test]
    fn a_service_covers_its_sender_and_local_users_of_its_namespace() {
        let users = space("@_irc_.*", true);
        let irc = service("irc", Namespaces { users, ..Namespaces::default() });
        for user in [user_id!("@bot:a.fr"), user_id!("@_irc_ann:a.fr")] {
            assert!(irc.covers_user(user) && irc.owns_user(user), "{user}");
        }
        for user in [user_id!("@_irc_ann:b.fr"), user_id!("@x@_irc_:a.fr"), user_id!("@ann:a.fr")] {
            assert!(!irc.covers_user(user) && !irc.owns_user(user), "{user}");
        }
    }

    #[test]
    fn what_is_not_exclusive_is_covered_and_not_owned() {
        let spaces = Namespaces {
            users: space(".*", false),
            aliases: space("#irc_.*|#old_.*", false),
            rooms: space("!kept", false),
        };
        let all = service("all", spaces);
        assert!(all.covers_user(user_id!("@ann:a.fr")) && !all.owns_user(user_id!("@ann:a.fr")));
        let alias = room_alias_id!("#old_x:a.fr");
        assert!(all.covers_alias(alias) && !all.owns_alias(alias));
        assert!(!all.covers_alias(room_alias_id!("#new_x:a.fr")), "both branches are anchored");
        assert!(all.covers_room(room_id!("!kept:a.fr")) && !all.covers_room(room_id!("!x!kept:a.fr")));
    }

    #[test]
    fn exclusive_namespaces_are_closed_to_all_others() {
        let spaces = Namespaces {
            users: space("@_irc_.*", true),
            aliases: space("#_irc_.*", true),
            ..Namespaces::default()
        };
        let mut other = service("other", Namespaces::default());
        other.sender = owned_user_id!("@other:a.fr");
        let services = Registrations::new([service("irc", spaces), other]);
        let (irc, other) = (services.get("irc").unwrap(), services.get("other").unwrap());
        let (user, alias) = (user_id!("@_irc_ann:a.fr"), room_alias_id!("#_irc_x:a.fr"));
        assert!(services.reserve_user(user, None) && services.reserve_alias(alias, None));
        assert!(services.reserve_user(user, Some(other)) && services.reserve_alias(alias, Some(other)));
        assert!(!services.reserve_user(user, Some(irc)) && !services.reserve_alias(alias, Some(irc)));
        assert!(services.reserve_user(user_id!("@other:a.fr"), None), "senders are reserved too");
    }

    #[test]
    fn expressions_are_linear_or_refused() {
        assert!(Namespace::new("(?=x)", true).is_err());
        assert!(Namespace::new(r"(a)\1", true).is_err());
        assert!(Namespace::new("(a{1000}){1000}", true).is_err());
        assert!(Namespace::new("@(unclosed", true).is_err());
        let hostile = Namespace::new("@(a*)*b", true).unwrap();
        assert!(!hostile.holds(&format!("@{}:a.fr", "a".repeat(10_000))));
    }

    #[test]
    fn tokens_are_not_shown() {
        let shown = format!("{:?}", service("irc", Namespaces::default()));
        assert!(!shown.contains("\"as\"") && !shown.contains("\"hs\""), "{shown}");
    }
}
