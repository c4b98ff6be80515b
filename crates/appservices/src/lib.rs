//! Application services: from the log to their transactions, and what they are asked.
//!
//! A follower of the log decides, in the order in which things happened, which service has to be told what,
//! and writes it into the service's queue together with its own place. One worker for each service makes
//! transactions of the queue; a transaction is written before it is sent, so that what is sent again is the same.
//! Who is interested in a room is a number kept for each service and room, never a look at its members.

mod config;
mod fleeting;
mod follow;
mod interest;
mod link;
mod lookup;
mod registration;
mod transaction;
mod worker;

use std::{collections::BTreeMap, sync::Arc};

use chappe_accounts::Accounts;
use chappe_delivery::Delivery;
use chappe_rooms::Rooms;
use chappe_rules::appservice::Registration;
use chappe_store::Store;

pub use self::{
    config::Config,
    link::{CallError, Link},
    lookup::ThirdParty,
    registration::{WrongRegistration, read_registrations},
};
use self::{fleeting::Fleeting, interest::Interest};

/// Why following or sending does not get on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
    #[error(transparent)]
    Rooms(#[from] chappe_rooms::Error),
    #[error(transparent)]
    Accounts(#[from] chappe_accounts::Error),
}

/// What [`Services`] is built from.
#[derive(Clone)]
pub struct Deps {
    /// The store.
    pub store: Store,
    /// Users and devices.
    pub accounts: Accounts,
    /// Rooms.
    pub rooms: Rooms,
    /// Typing and presence.
    pub delivery: Delivery,
    /// The way to the services.
    pub link: Link,
}

/// The application services and what waits for them: a handle, clones share it.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    deps: Deps,
    interest: Interest,
    /// Of the services that have an address.
    lanes: BTreeMap<String, Lane>,
}

/// What a worker is woken by, and what it is told beside its queue.
struct Lane {
    service: Arc<Registration>,
    /// Something waits.
    wake: tokio::sync::Notify,
    /// The service has shown that it is there: no more waiting.
    alive: tokio::sync::Notify,
    fleeting: Fleeting,
}

impl Services {
    /// Counts what has to be counted anew since the registrations changed. Nothing may be going on in rooms meanwhile.
    pub async fn open(deps: Deps) -> Result<Self, chappe_store::Error> {
        let services = deps.link.services().clone();
        let interest = Interest::open(&deps.store, &services).await?;
        let with_address = services.iter().filter(|service| service.url.is_some());
        let lanes = with_address.map(|service| {
            let (wake, alive) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
            let lane = Lane { service: service.clone(), wake, alive, fleeting: Fleeting::default() };
            (service.id.clone(), lane)
        });
        let lanes = lanes.collect();
        Ok(Self(Arc::new(Inner { deps, interest, lanes })))
    }

    /// Starts the follower and the workers; they end with the world.
    pub fn start(&self) {
        if self.0.deps.link.services().is_empty() {
            return;
        }
        let world = self.0.deps.link.world();
        drop(world.spawn("appservice follower", chappe_store::following(self.clone().follow())));
        for id in self.0.lanes.keys() {
            let work = self.clone().work(id.clone());
            drop(world.spawn("appservice worker", chappe_store::following(work)));
        }
        if self.0.lanes.values().any(|lane| lane.service.wants.any_ephemeral()) {
            drop(world.spawn("appservice typing", self.clone().follow_typing()));
            drop(world.spawn("appservice presence", self.clone().follow_presence()));
        }
    }

    /// The way to the services.
    pub fn link(&self) -> &Link {
        &self.0.deps.link
    }

    /// A service has shown that it is there: what waits for it is tried at once.
    pub fn heard_from(&self, service: &Registration) {
        if let Some(lane) = self.0.lanes.get(&service.id) {
            lane.alive.notify_waiters();
        }
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} application services", self.0.deps.link.services().len())
    }
}
