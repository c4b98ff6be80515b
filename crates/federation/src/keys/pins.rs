//! Keys that were written down: those of a server that has any are believed alone, and nobody is asked for others.

use std::{collections::BTreeMap, sync::Arc};

use chappe_store::server_keys::ServerKey;
use parking_lot::RwLock;
use ruma::{OwnedServerName, OwnedServerSigningKeyId, ServerName};

use crate::{OldKey, PinnedKey};

/// The keys of one server, by id.
pub(crate) type Pinned = BTreeMap<OwnedServerSigningKeyId, PinnedKey>;

/// Server name in lower case, since `B.example` is reached where `b.example` is → its keys.
type ByServer = BTreeMap<String, BTreeMap<String, ServerKey>>;

/// Pinned keys: a handle, clones share it. What the configuration says of a server counts, then what the network's list says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    configured: ByServer,
    listed: RwLock<ByServer>,
}

impl Pins {
    pub(crate) fn new(configured: &BTreeMap<OwnedServerName, Pinned>) -> Self {
        let configured = by_server(configured.iter().map(|(server, keys)| (&**server, keys.clone())));
        Self(Arc::new(Inner { configured, listed: RwLock::default() }))
    }

    /// Takes what the network's list says in place of what it said before.
    pub(crate) fn follow_network<'a>(&self, listed: impl Iterator<Item = (&'a ServerName, Pinned)>) {
        *self.0.listed.write() = by_server(listed);
    }

    /// The keys of a server; `None` where none were written down.
    pub(crate) fn of(&self, server: &ServerName) -> Option<BTreeMap<String, ServerKey>> {
        let name = server.as_str().to_ascii_lowercase();
        self.0.configured.get(&name).cloned().or_else(|| self.0.listed.read().get(&name).cloned())
    }
}

fn by_server<'a>(keys: impl Iterator<Item = (&'a ServerName, Pinned)>) -> ByServer {
    let kept = keys.filter(|(_, keys)| !keys.is_empty()).map(|(server, keys)| {
        let keys = keys.into_iter().map(|(id, key)| (id.to_string(), kept(key)));
        (server.as_str().to_ascii_lowercase(), keys.collect())
    });
    kept.collect()
}

/// A key that is pinned no more: what it has signed until now still counts. Whether it goes on signing its server is asked, unless
/// that is gone.
pub(crate) fn laid_aside(key: PinnedKey, now: u64, is_gone: bool) -> ServerKey {
    let kept = kept(key);
    ServerKey { valid_until: kept.valid_until.min(now), old: kept.old || is_gone, ..kept }
}

fn kept(key: PinnedKey) -> ServerKey {
    match key {
        PinnedKey::Current(key) => ServerKey { key, valid_until: u64::MAX, old: false },
        PinnedKey::Old(OldKey { key, expired_ts }) => ServerKey { key, valid_until: expired_ts, old: true },
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn the_configuration_counts_before_the_list_and_old_keys_have_an_end() {
        let keys = |id: &str, key: PinnedKey| Pinned::from([(id.try_into().unwrap(), key)]);
        let old = PinnedKey::Old(OldKey { key: "b".to_owned(), expired_ts: 7 });
        let configured =
            [(server_name!("a.example").to_owned(), keys("ed25519:1", PinnedKey::Current("a".to_owned())))];
        let pins = Pins::new(&configured.into());
        let listed = [
            (server_name!("a.example"), keys("ed25519:2", old.clone())),
            (server_name!("b.example"), keys("ed25519:2", old)),
            (server_name!("c.example"), Pinned::new()),
        ];
        pins.follow_network(listed.into_iter());
        assert_eq!(
            pins.of(server_name!("A.example")).unwrap().into_keys().collect::<Vec<_>>(),
            ["ed25519:1"]
        );
        let kept = pins.of(server_name!("b.example")).unwrap();
        assert!(kept["ed25519:2"].old && kept["ed25519:2"].valid_until == 7);
        assert!(
            pins.of(server_name!("c.example")).is_none(),
            "a server without keys is believed as any other"
        );
        pins.follow_network(std::iter::empty());
        assert!(pins.of(server_name!("b.example")).is_none());
    }
}
