//! The `[federation]` section of the configuration.

use std::{collections::BTreeMap, time::Duration};

use chappe_web::Rate;
use ruma::{OwnedServerName, OwnedServerSigningKeyId};
use serde::{Deserialize, Serialize};

/// How this server deals with other servers. Durations are in seconds unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Servers to talk with, such as `agent.dinum.tchap.gouv.fr` or `*.tchap.gouv.fr`. Absent: with every server.
    /// Present: with these alone, in both directions.
    pub allow: Option<Vec<String>>,
    /// Servers that are asked, in this order, for keys of servers that do not answer or do not know their earlier keys any more.
    /// They are trusted with that.
    pub notaries: Vec<OwnedServerName>,
    /// What `/.well-known/matrix/server` says, such as `matrix.example.org:443`. Absent: there is no such page.
    pub delegated_name: Option<OwnedServerName>,
    /// Keys this server signed with before, published so that old events can still be checked.
    pub old_keys: BTreeMap<OwnedServerSigningKeyId, OldKey>,
    /// Servers whose keys are these and no others, in base64 by key id: they are never asked for their keys, nor is anybody
    /// else, and what another key of theirs has signed is not believed.
    pub pinned_keys: BTreeMap<OwnedServerName, BTreeMap<OwnedServerSigningKeyId, PinnedKey>>,
    /// The network whose signed list of servers is followed. With it, nobody who is not on a valid list is talked with.
    pub network: Option<NetworkConfig>,
    /// How long published keys may be relied on.
    pub key_validity: u64,
    /// Wait after the first failure of a destination, in milliseconds; it doubles with each further one.
    pub backoff_min_ms: u64,
    /// Longest wait between two attempts.
    pub backoff_max: u64,
    /// Time for one request to another server.
    pub timeout: u64,
    /// Time for requests that make the other server work hard: transactions, joins, media. States and media may go on coming, a
    /// second longer for every 64 KiB, for a quarter of an hour at most.
    pub long_timeout: u64,
    /// Transactions on their way at once, over all destinations that answer at once; eight times as many beside for those that
    /// take longer. For those that did not answer last time there is a quarter of this number, and all of it for those of
    /// them that take longer; the same again for those that are gone for longer.
    pub concurrent_sends: usize,
    /// Rooms of received transactions worked on at once for servers that are in them and quick; others have places beside.
    pub concurrent_rooms: usize,
    /// From this many events waiting for a destination that was away, only the newest of each room are sent.
    pub catch_up_after: usize,
    /// Whether other servers are told what users call their devices.
    pub device_names: bool,
    /// How long a delegation found in a well-known page is kept when the page does not say, at most twice that.
    pub well_known_lifetime: u64,
    /// How long it is kept that there is no such page.
    pub well_known_retry: u64,
    /// How much others may ask of this server.
    pub rates: Rates,
}

/// The section `[federation.network]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// What the network is called, as its list says it.
    pub name: OwnedServerName,
    /// Whose signature makes a list: ed25519 public keys in base64 by key id. One of them is enough.
    pub trust_roots: BTreeMap<OwnedServerSigningKeyId, String>,
    /// Servers that are asked for the list, this one passed over. Without any, the list is brought by the operator.
    #[serde(default)]
    pub publishers: Vec<OwnedServerName>,
    /// How often they are asked.
    #[serde(default = "NetworkConfig::an_hour")]
    pub fetch_seconds: u64,
}

impl NetworkConfig {
    fn an_hour() -> u64 {
        3600
    }
}

/// The section `[federation.rates]`; each entry is `{ per_second, burst }`, and 0 per second is unlimited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Signed requests of one other server.
    pub requests: Rate,
    /// Invites from one other server.
    pub invites: Rate,
    /// Invites from other servers to one user.
    pub invites_to_user: Rate,
    /// Keys of servers that somebody at one address, who has proved nothing yet, has this server look for; and, counted apart,
    /// hundreds of documents at hand that it has this server sign as a notary.
    pub key_lookups: Rate,
    /// News of bound addresses from one address, which nobody has to sign, and the invites that waited with other servers.
    pub bound: Rate,
    /// Invites that such news have this server ask one other server for.
    pub bound_invites: Rate,
    /// The network's list, asked for by one address.
    pub network_list: Rate,
    /// Searches for people and questions about accounts, by one other server of the network.
    pub directory: Rate,
    /// Searches of one user there.
    pub directory_by_user: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            requests: Rate::new(200.0, 5_000),
            invites: Rate::new(2.0, 200),
            invites_to_user: Rate::new(0.05, 50),
            key_lookups: Rate::new(2.0, 60),
            bound: Rate::new(0.5, 100),
            bound_invites: Rate::new(0.2, 100),
            network_list: Rate::new(1.0, 60),
            directory: Rate::new(20.0, 500),
            directory_by_user: Rate::new(5.0, 50),
        }
    }
}

/// A key that is believed because it was written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PinnedKey {
    /// The public key, in base64, of a server that signs with it.
    Current(String),
    /// One that the server signed with before.
    Old(OldKey),
}

impl PinnedKey {
    /// The public key, in base64.
    pub fn text(&self) -> &str {
        match self {
            Self::Current(key) | Self::Old(OldKey { key, .. }) => key,
        }
    }
}

/// A key that is no longer used for signing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldKey {
    /// The public key, unpadded base64.
    pub key: String,
    /// When it was last used (milliseconds since the Unix epoch).
    pub expired_ts: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow: None,
            notaries: Vec::new(),
            delegated_name: None,
            old_keys: BTreeMap::new(),
            pinned_keys: BTreeMap::new(),
            network: None,
            key_validity: 24 * 3600,
            backoff_min_ms: 10_000,
            backoff_max: 24 * 3600,
            timeout: 20,
            long_timeout: 90,
            concurrent_sends: 64,
            concurrent_rooms: 16,
            catch_up_after: 200,
            device_names: false,
            well_known_lifetime: 24 * 3600,
            well_known_retry: 3600,
            rates: Rates::default(),
        }
    }
}

impl Config {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub(crate) fn long_timeout(&self) -> Duration {
        Duration::from_secs(self.long_timeout)
    }
}
