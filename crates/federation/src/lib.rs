//! Server-server: inbound handlers, signed client, key ring, discovery, one sender per destination.
//!
//! Two halves. [`Network`] reaches other servers and knows nothing of this server's rooms: it is built first and given
//! to `rooms` as its [`chappe_rooms::Peers`]. [`Federation`] answers other servers ([`routes`]) and sends what waits
//! for them ([`Federation::start`]): it is built last, from `Network` and the domain.

mod allow;
mod auth;
mod backoff;
mod config;
mod discovery;
mod keys;
mod link;
mod network;
mod peers;

use std::sync::Arc;

use chappe_accounts::Accounts;
use chappe_rooms::Rooms;

pub use self::{
    allow::AllowList,
    auth::Origin,
    config::{Config, OldKey},
    keys::{KeyRing, weak_keys},
    network::{Network, NetworkDeps},
};

/// What [`Federation`] is built from.
#[derive(Debug)]
pub struct FederationDeps {
    /// The outbound half.
    pub network: Network,
    /// Rooms.
    pub rooms: Rooms,
    /// Users and devices.
    pub accounts: Accounts,
}

/// Other servers, as they reach this one and as it keeps them up to date: a handle, clones share it.
#[derive(Clone)]
pub struct Federation(Arc<Inner>);

struct Inner {
    network: Network,
    rooms: Rooms,
    accounts: Accounts,
}

impl Federation {
    /// The inbound half and the senders, not yet at work.
    pub fn new(deps: FederationDeps) -> Self {
        let FederationDeps { network, rooms, accounts } = deps;
        Self(Arc::new(Inner { network, rooms, accounts }))
    }

    /// The outbound half.
    pub fn network(&self) -> &Network {
        &self.0.network
    }
}

impl std::fmt::Debug for Federation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Federation of {}", self.0.network.server())
    }
}

#[cfg(test)]
mod tests;
