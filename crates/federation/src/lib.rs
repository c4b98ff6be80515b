//! Server-server: inbound handlers, signed client, key ring, discovery, one sender per destination.
//!
//! Two halves. [`Network`] reaches other servers and knows nothing of this server's rooms: it is built first and given
//! to `rooms` as its [`chappe_rooms::Peers`]. [`Federation`] answers other servers ([`routes`]) and sends what waits
//! for them ([`Federation::start`]): it is built last, from `Network` and the domain.

mod allow;
mod answers;
mod auth;
mod backoff;
mod config;
mod destinations;
mod devices;
mod directories;
mod discovery;
mod fleeting;
mod gate;
mod homeservers;
mod identity_server;
mod inbound;
mod keys;
mod link;
mod media_routes;
mod network;
mod network_list;
mod peers;
mod places;
mod prompt;
mod refusal;
mod remote_media;
mod remote_users;
mod routes;
mod sender;

use std::sync::Arc;

use chappe_accounts::Accounts;
use chappe_rooms::Rooms;
use chappe_search::Search;
use chappe_store::outbox::Announced;
use ruma::{OwnedUserId, RoomId, ServerName, UserId};

pub use self::{
    allow::AllowList,
    auth::Origin,
    config::{Config, NetworkConfig, OldKey, PinnedKey, Rates},
    destinations::{Destination, all_destinations, destinations, queue_length},
    fleeting::RemoteActivity,
    keys::{KeyRing, is_public_key, weak_keys},
    media_routes::{MediaState, media_routes},
    network::{Network, NetworkDeps},
    network_list::{
        Applied, Held, InvalidList, ListBook, ListDeps, ListError, ListStatus, Member, NetworkList,
        VerifyKey, cosign,
    },
    routes::routes,
    sender::PresenceNews,
};

/// What [`Federation`] is built from.
pub struct FederationDeps {
    /// The outbound half.
    pub network: Network,
    /// Rooms.
    pub rooms: Rooms,
    /// Users and devices.
    pub accounts: Accounts,
    /// Who is there.
    pub search: Search,
    /// Where typing and presence of remote users go.
    pub activity: Arc<dyn RemoteActivity>,
    /// The list of the network, if one is followed.
    pub list: Option<ListBook>,
}

impl std::fmt::Debug for FederationDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FederationDeps of {}", self.network.server())
    }
}

/// Other servers, as they reach this one and as it keeps them up to date: a handle, clones share it.
#[derive(Clone)]
pub struct Federation(Arc<Inner>);

struct Inner {
    network: Network,
    rooms: Rooms,
    accounts: Accounts,
    search: Search,
    sender: sender::Sender,
    inbound: inbound::Inbound,
    answers: answers::Answers,
    devices: devices::Devices,
    profiles: remote_users::Profiles,
    fleeting: Arc<dyn RemoteActivity>,
    list: Option<ListBook>,
}

impl Federation {
    /// The inbound half and the senders, not yet at work.
    pub fn new(deps: FederationDeps) -> Self {
        let FederationDeps { network, rooms, accounts, search, activity: fleeting, list } = deps;
        let sender = sender::Sender::new(network.clone(), rooms.clone(), accounts.clone());
        let inbound = inbound::Inbound::new(network.world(), network.config().concurrent_rooms);
        let devices = devices::Devices::new(network.world().clone());
        let profiles = remote_users::Profiles::default();
        let answers = answers::Answers::default();
        Self(Arc::new(Inner {
            network,
            rooms,
            accounts,
            search,
            sender,
            inbound,
            answers,
            devices,
            profiles,
            fleeting,
            list,
        }))
    }

    /// The outbound half.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// The list of the network, if one is followed.
    pub fn list(&self) -> Option<&ListBook> {
        self.0.list.as_ref()
    }

    pub(crate) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    pub(crate) fn search(&self) -> &Search {
        &self.0.search
    }

    /// What other servers were told of a user's devices.
    pub(crate) async fn announced(&self, user: &UserId) -> Result<Announced, chappe_store::Error> {
        self.0.sender.announced(user).await
    }

    /// 404 for users of other servers: this one speaks for its own alone.
    pub(crate) fn local(&self, user: &UserId) -> Result<(), refusal::Refusal> {
        if user.server_name() == self.network().server() {
            Ok(())
        } else {
            Err(refusal::Refusal::not_found())
        }
    }

    /// Starts following the log, sending what waits, and finishing what was received; ends when the world stops.
    pub fn start(&self) {
        self.0.sender.start();
        let world = self.network().world();
        world.spawn("device lists", self.clone().keep_devices());
        world.spawn("keys of strangers", self.network().keys().clone().keep_within_bounds());
        if let Some(list) = self.0.list.clone() {
            world.spawn("network list", list.follow());
        }
        let resuming = self.clone();
        world.spawn("received before", async move {
            if let Err(error) = resuming.resume().await {
                tracing::error!(%error, "events that were received before cannot be dealt with");
            }
        });
    }

    /// Tries a destination now, or every destination that something waits for (for instance after an outage of this
    /// server's own).
    pub async fn retry(&self, destination: Option<&ServerName>) -> Result<(), chappe_store::Error> {
        match destination {
            None => self.0.sender.retry_all().await,
            Some(destination) => self.0.sender.retry(destination).await,
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

    /// Tells the servers that share a room with some local users of their presence, each of all of them together. Lost if
    /// they are not reached now.
    pub async fn send_presence(
        &self,
        news: &[(OwnedUserId, PresenceNews)],
    ) -> Result<(), chappe_store::Error> {
        self.0.sender.send_presence(news).await
    }
}

impl std::fmt::Debug for Federation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Federation of {}", self.0.network.server())
    }
}

#[cfg(test)]
mod tests;
