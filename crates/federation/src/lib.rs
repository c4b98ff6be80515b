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
mod sender;

use std::sync::Arc;

use chappe_accounts::Accounts;
use chappe_rooms::Rooms;
use ruma::{RoomId, ServerName, UserId};

pub use self::{
    allow::AllowList,
    auth::Origin,
    config::{Config, OldKey},
    keys::{KeyRing, weak_keys},
    network::{Network, NetworkDeps},
    sender::PresenceNews,
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
    sender: sender::Sender,
}

impl Federation {
    /// The inbound half and the senders, not yet at work.
    pub fn new(deps: FederationDeps) -> Self {
        let FederationDeps { network, rooms, accounts } = deps;
        let sender = sender::Sender::new(network.clone(), accounts.clone());
        Self(Arc::new(Inner { network, rooms, accounts, sender }))
    }

    /// The outbound half.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// Starts following the log and sending what waits; ends when the world stops.
    pub fn start(&self) {
        self.0.sender.start();
    }

    /// Tries a destination now and forgets its failures, or every destination that something waits for (for instance
    /// after the list of allowed servers was replaced).
    pub async fn retry(&self, destination: Option<&ServerName>) -> Result<(), chappe_store::Error> {
        match destination {
            None => self.0.sender.wake_all().await,
            Some(destination) => {
                self.0.network.backoff().reset(destination).await?;
                self.0.sender.wake_at_once(destination);
                Ok(())
            }
        }
    }

    /// Tells the other servers in a room that a local user types or has stopped. Lost if they are not reached now.
    pub async fn send_typing(
        &self,
        room: &RoomId,
        user: &UserId,
        typing: bool,
    ) -> Result<(), chappe_store::Error> {
        self.0.sender.send_typing(room, user, typing).await
    }

    /// Tells the servers that share a room with a local user of the user's presence. Lost if they are not reached now.
    pub async fn send_presence(&self, user: &UserId, news: &PresenceNews) -> Result<(), chappe_store::Error> {
        self.0.sender.send_presence(user, news).await
    }
}

impl std::fmt::Debug for Federation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Federation of {}", self.0.network.server())
    }
}

#[cfg(test)]
mod tests;
