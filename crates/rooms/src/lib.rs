//! From a draft or a received PDU to a committed event; reads of one room.
//!
//! Local events: [`Rooms::send`], [`Rooms::create`], and the membership functions. Events of other servers:
//! [`Rooms::receive`] for transactions, and one function per federation handshake in `serve`. What this crate
//! needs from other servers is [`Peers`].

mod actor;
mod config;
mod create;
mod draft;
mod error;
mod membership;
mod peers;
mod receive;
mod send;
mod serve;
mod upgrade;

use std::sync::Arc;

use chappe_store::Store;
use ruma::{OwnedServerName, ServerName};

pub use self::{
    actor::{Actor, Standing, Transaction},
    config::{Config, VERSIONS},
    create::Upgrade,
    draft::Draft,
    error::{Error, Result},
    membership::{Change, Via},
    peers::{
        AliasTarget, Gap, Invitation, JoinAnswer, KeyWanted, PeerError, Peers, StateEvents, StateIds,
        Template,
    },
    receive::Outcome,
    serve::SignedMember,
};

/// What [`Rooms`] is built from.
pub struct Deps {
    /// The store.
    pub store: Store,
    /// Other servers.
    pub peers: Arc<dyn Peers>,
}

/// The rooms of this server: a handle, clones share it.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    store: Store,
    server: OwnedServerName,
    peers: Arc<dyn Peers>,
    config: Config,
}

impl Rooms {
    /// The name of this server.
    pub fn server(&self) -> &ServerName {
        &self.0.server
    }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rooms of {}", self.0.server)
    }
}
