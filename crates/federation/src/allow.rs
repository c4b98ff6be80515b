//! Which servers this one talks with: everybody, or those on a list that can be changed while running.

use std::sync::Arc;

use parking_lot::RwLock;
use ruma::ServerName;
use tokio::sync::watch;

/// The list: a handle, clones share it. Without a list every server is allowed.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    patterns: RwLock<Option<Patterns>>,
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

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Under(suffix) => name.strip_suffix(suffix.as_str()).is_some_and(|head| !head.is_empty()),
        }
    }
}

impl AllowList {
    /// A list of names and of domains written `*.example.org`; `None` allows every server.
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

    /// Tells when the list was replaced.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether this server talks with `server`.
    pub fn permits(&self, server: &ServerName) -> bool {
        let list = self.0.patterns.read();
        let Some(Patterns(patterns)) = list.as_ref() else { return true };
        let name = server.as_str().to_ascii_lowercase();
        patterns.iter().any(|pattern| pattern.matches(&name))
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
        for allowed in ["agent.dinum.tchap.gouv.fr", "AGENT.dinum.tchap.gouv.fr", "a.example.org", "h:8448"] {
            assert!(list.permits(&ruma::OwnedServerName::try_from(allowed).unwrap()), "{allowed}");
        }
        for refused in ["example.org", "evilexample.org", "agent.dinum.tchap.gouv.fr.evil.org", "h", "h:1"] {
            assert!(!list.permits(&ruma::OwnedServerName::try_from(refused).unwrap()), "{refused}");
        }
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
