//! Which servers this one talks with: everybody, or those on a list that can be changed while running.
//!
//! There may be two lists, the operator's and the network's. A server must be on both: neither opens what the other closes.
//!
//! No list lets in a name with capitals. `A.example` is another server than `a.example` (appendices, "Server Name"), and one that
//! could sign in every spelling of its name would have the shares of many.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::RwLock;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::watch;

/// The list: a handle, clones share it. Without a list every server is allowed.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    patterns: RwLock<Option<Patterns>>,
    /// The servers of the network, in lower case; empty where the network is closed.
    members: RwLock<Option<BTreeSet<String>>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Patterns(Vec<Pattern>);

#[derive(Debug)]
enum Pattern {
    /// Exactly this name, port included if it has one.
    Exact(String),
    /// Any name under this domain, such as `.tchap.gouv.fr`; never the domain itself.
    Under(String),
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let text = text.trim().to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => Self::Under(suffix.to_owned()),
            _ => Self::Exact(text),
        }
    }

    fn name(&self) -> Option<String> {
        match self {
            Self::Exact(name) => Some(name.clone()),
            Self::Under(_) => None,
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Under(suffix) => name.strip_suffix(suffix.as_str()).is_some_and(|head| !head.is_empty()),
        }
    }
}

impl AllowList {
    /// A list of names and of domains written `*.example.org`, in any case; `None` allows every server.
    pub fn new(names: Option<&[String]>) -> Self {
        let list = Self::default();
        list.replace(names);
        list
    }

    /// Puts another list in its place, at once and for all users of the handle.
    pub fn replace(&self, names: Option<&[String]>) {
        let patterns = names.map(|names| Patterns(names.iter().map(|name| Pattern::parse(name)).collect()));
        *self.0.patterns.write() = patterns;
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Lets in, of those that the operator's list lets in, the servers of the network alone.
    pub(crate) fn follow_network<'a>(&self, members: impl Iterator<Item = &'a ServerName>) {
        let members = members.map(|server| server.as_str().to_ascii_lowercase()).collect();
        *self.0.members.write() = Some(members);
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Whether nobody is let in, since the network has no good list: who belongs to it is not known then.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.members.read().as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Waits until that is known.
    pub(crate) async fn until_open(&self) {
        let mut changes = self.changes();
        while self.is_closed() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells when a list was replaced.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The servers that the lists let in by name, in lower case: those of a domain are not known; none: there is no list.
    pub fn members(&self) -> Option<Vec<OwnedServerName>> {
        let named = match (&*self.0.members.read(), &*self.0.patterns.read()) {
            (None, None) => return None,
            (Some(members), _) => members.iter().cloned().collect(),
            (None, Some(Patterns(patterns))) => patterns.iter().filter_map(Pattern::name).collect::<Vec<_>>(),
        };
        let names = named.into_iter().filter_map(|name| OwnedServerName::try_from(name).ok());
        Some(names.filter(|name| self.permits(name)).collect())
    }

    /// Whether this server talks with `server`.
    pub fn permits(&self, server: &ServerName) -> bool {
        self.lets_in(server, false)
    }

    /// Whether it does, or may once the network has a good list.
    pub(crate) fn may_permit(&self, server: &ServerName) -> bool {
        self.lets_in(server, true)
    }

    fn lets_in(&self, server: &ServerName, if_closed: bool) -> bool {
        let (patterns, members) = (self.0.patterns.read(), self.0.members.read());
        if patterns.is_none() && members.is_none() {
            return true;
        }
        let name = server.as_str();
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return false;
        }
        let listed = |Patterns(patterns): &Patterns| patterns.iter().any(|pattern| pattern.matches(name));
        let is_member = |members: &BTreeSet<String>| {
            if members.is_empty() { if_closed } else { members.contains(name) }
        };
        patterns.as_ref().is_none_or(listed) && members.as_ref().is_none_or(is_member)
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::AllowList;

    #[test]
    fn a_list_allows_what_it_names_and_nothing_else() {
        let names = ["agent.dinum.tchap.gouv.fr".to_owned(), "*.Example.org".to_owned(), "h:8448".to_owned()];
        let list = AllowList::new(Some(&names));
        for allowed in ["agent.dinum.tchap.gouv.fr", "a.example.org", "h:8448"] {
            assert!(list.permits(&ruma::OwnedServerName::try_from(allowed).unwrap()), "{allowed}");
        }
        for refused in ["example.org", "evilexample.org", "agent.dinum.tchap.gouv.fr.evil.org", "h", "h:1"] {
            assert!(!list.permits(&ruma::OwnedServerName::try_from(refused).unwrap()), "{refused}");
        }
        for other in [server_name!("AGENT.dinum.tchap.gouv.fr"), server_name!("A.example.org")] {
            assert!(!list.permits(other), "{other} is another server");
        }
    }

    #[test]
    fn neither_list_opens_what_the_other_closes() {
        let list = AllowList::new(Some(&["*.example.org".to_owned()]));
        let names = ["a.example.org", "B.example.org", "c.example"].map(|name| name.try_into().unwrap());
        list.follow_network(names.iter().map(|name: &ruma::OwnedServerName| &**name));
        assert!(list.permits(server_name!("a.example.org")) && list.permits(server_name!("b.example.org")));
        assert!(!list.permits(server_name!("A.example.org")), "a share for each spelling");
        assert!(!list.permits(server_name!("c.example")), "not on the operator's list");
        assert!(!list.permits(server_name!("d.example.org")), "not on the network's list");
        assert!(list.may_permit(server_name!("a.example.org")));
        assert!(!list.may_permit(server_name!("d.example.org")), "who is of the network is known");
        list.follow_network(std::iter::empty());
        assert!(!list.permits(server_name!("a.example.org")));
        assert!(list.may_permit(server_name!("d.example.org")));
        assert!(!list.may_permit(server_name!("c.example")), "whatever the network says");
    }

    #[test]
    fn those_are_known_by_name_whom_both_lists_let_in() {
        let names = |list: &AllowList| {
            let names = list.members()?;
            Some(names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let open = AllowList::new(None);
        assert_eq!(names(&open), None);
        let list = AllowList::new(Some(&["B.test".to_owned(), "*.c.test".to_owned(), "no name".to_owned()]));
        assert_eq!(names(&list), Some(vec!["b.test".to_owned()]));
        let members = ["a.c.test", "b.test", "d.test"].map(|name| name.try_into().unwrap());
        list.follow_network(members.iter().map(|name: &ruma::OwnedServerName| &**name));
        assert_eq!(names(&list), Some(vec!["a.c.test".to_owned(), "b.test".to_owned()]));
    }

    #[tokio::test]
    async fn whoever_waits_for_an_open_network_goes_on_when_it_opens() {
        let list = AllowList::new(Some(&[]));
        assert!(!list.is_closed(), "the operator's list is known");
        list.until_open().await;
        list.follow_network(std::iter::empty());
        assert!(list.is_closed());
        let opens = async {
            tokio::task::yield_now().await;
            list.follow_network(std::iter::once(server_name!("a.example")));
        };
        tokio::join!(list.until_open(), opens);
        assert!(!list.is_closed());
    }

    #[test]
    fn the_list_changes_under_all_its_handles() {
        let list = AllowList::new(None);
        let other = list.clone();
        assert!(other.permits(server_name!("anyone.org")));
        list.replace(Some(&[]));
        assert!(!other.permits(server_name!("anyone.org")));
    }
}
