//! From a draft or a received PDU to a committed event; reads of one room.
//!
//! Local events: [`Rooms::send`], [`Rooms::create`], and the membership functions. Events of other servers:
//! [`Rooms::receive`] for transactions, and one function per federation handshake in `serve`. What this crate
//! needs from other servers is [`Peers`].

mod access;
mod actor;
mod announce;
mod author;
mod config;
mod create;
mod delayed;
mod desk;
mod directory;
mod draft;
mod effects;
mod error;
mod farewell;
mod inherit;
mod last_admin;
mod membership;
mod notices;
mod oversight;
mod partial;
mod peers;
mod policy_server;
mod queries;
mod read;
mod receipts;
mod receive;
mod relations;
mod remote;
mod reports;
mod retention;
mod send;
mod serve;
mod sizes;
mod sticky;
mod stranger;
mod stripped;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod thread_subscriptions;
mod turn;
mod upgrade;
mod visible;
mod waits;
mod wipe;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use chappe_accounts::Accounts;
use chappe_rules::{access::Access as AccessRules, build::SigningKey, check::WeakKeys};
use chappe_store::{RoomNid, StateChange, StateRef, Store, state::StateKey};
use chappe_world::{Live, World};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};

pub use self::{
    actor::{Actor, Standing, Transaction},
    config::{Config, UNSTABLE_VERSIONS, VERSIONS},
    create::Upgrade,
    directory::{
        HierarchyPage, HierarchyRequest, HierarchyRoom, PublicRooms, PublicRoomsRequest, Summary, Visibility,
    },
    draft::Draft,
    error::{Error, Result},
    farewell::Departure,
    membership::{AddressInvite, Change, Via},
    notices::{Notice, NoticesConfig},
    oversight::{Block, Evicted, Force, Head, Listed, Replacement, RoomOrder, RoomPage, RoomQuery},
    peers::{
        AliasTarget, Extent, Gap, Held, Invitation, JoinAnswer, KeysWanted, Occasion, PeerError, Peers,
        Purpose, StateEvents, StateIds, Template, WantedKeys,
    },
    policy_server::Unasked,
    queries::{NoServices, Queries},
    read::{
        context::{Context, Surroundings},
        filter::{Relations, passes, passes_room},
        members::{MembersRequest, Profile},
        messages::{Page, PageRequest},
        render::Bundle,
        timestamp::Found,
        token::{Place, sync_position},
        view::{Event, View},
    },
    receipts::{Markers, RemoteReceipt},
    receive::Outcome,
    relations::{Recurse, RelationsPage, RelationsRequest, ThreadsPage},
    reports::Reported,
    retention::ExpiryFigures,
    serve::{AcceptedJoin, BoundInvite, SignedMember, policy::PolicyServerConfig},
    sticky::StickyEvent,
    thread_subscriptions::{SubscriptionChange, SubscriptionsPage, changed_subscriptions},
    visible::{Access, Seen, Stay},
    wipe::REDACT_EVENTS,
};
pub use chappe_rules::client::{Form, Unsigned};
pub use chappe_store::delayed::Delayed;

/// What [`Rooms`] is built from.
#[derive(Clone)]
pub struct Deps {
    /// The store.
    pub store: Store,
    /// Local users, for their profiles.
    pub accounts: Accounts,
    /// Time, randomness, tasks.
    pub world: World,
    /// The name of this server.
    pub server: OwnedServerName,
    /// Signs what is made here.
    pub key: Arc<SigningKey>,
    /// Signing keys that are known to everybody and refused.
    pub weak_keys: Arc<WeakKeys>,
    /// Other servers.
    pub peers: Arc<dyn Peers>,
    /// Application services.
    pub services: Arc<dyn Queries>,
}

/// The rooms of this server: a handle, clones share it.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    pub(crate) world: World,
    pub(crate) server: OwnedServerName,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) weak_keys: Arc<WeakKeys>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) services: Arc<dyn Queries>,
    config: Live<Config>,
    pub(crate) turns: turn::Turns,
    /// Wakes the worker that sends delayed events: there is one more, or one less.
    pub(crate) delayed: tokio::sync::Notify,
    /// Wakes the worker that has guests leave: a room shuts them out.
    pub(crate) shut: tokio::sync::Notify,
    /// Rooms whose heads are to be brought together.
    pub(crate) crowded: oversight::heads::Crowded,
    /// What resolving committed versions of a room's state came to, where it is little.
    pub(crate) resolved: Cache<(RoomNid, Vec<StateRef>), Arc<Vec<StateChange>>>,
    /// Where it is much.
    pub(crate) resolutions: receive::Resolutions,
    /// Servers with joined users at a committed version of a room's state; of a room whose members are to come they do not
    /// follow from it.
    pub(crate) servers: sizes::ServersByState,
    /// Users of servers that have no joined one, by the current state of the room.
    pub(crate) gone: Cache<(RoomNid, StateRef, OwnedServerName), Arc<[StateKey]>>,
    /// Users of servers that have a joined one, by the current state of the room.
    pub(crate) users: Cache<(RoomNid, StateRef, OwnedServerName), Arc<[StateKey]>>,
    /// A few users of servers, for whom these may see much.
    pub(crate) seers: Cache<(RoomNid, OwnedServerName), Arc<[StateKey]>>,
    /// Events that could not be completed with the help of a server: not tried again with it for a while.
    pub(crate) hopeless: receive::Hopeless<(OwnedServerName, OwnedEventId)>,
    /// Missing old events of which a server gave nothing: it is not asked for them again for a while.
    pub(crate) nothing_older: receive::Hopeless<(OwnedServerName, OwnedEventId)>,
    /// Servers that could not be reached when events of theirs rested on missing ones, and for which nobody else had these.
    pub(crate) unhelped: receive::Hopeless<OwnedServerName>,
    /// Events that were given without what they say, and that their own servers do not give either.
    pub(crate) blank: receive::Hopeless<(OwnedRoomId, OwnedEventId)>,
    /// Servers for whose events others were asked for longer than one transaction may have them asked.
    pub(crate) slow: receive::Hopeless<OwnedServerName>,
    /// What states that servers told of late have changed.
    pub(crate) tellers: receive::Tellers,
    /// Joins through other servers that are under way.
    pub(crate) joins: remote::Joins,
    /// Rooms whose memberships are being fetched, and word of those that are whole now.
    pub(crate) partial: partial::Partial,
    /// Which policy server rooms name, by state.
    pub(crate) policy_servers: Cache<(RoomNid, StateRef), Option<policy_server::Named>>,
    /// What makes this server the policy server of rooms, if it is one.
    pub(crate) judge: Live<Option<serve::policy::Judge>>,
    /// What policy servers have signed that is not committed yet.
    pub(crate) policy_signatures: policy_server::Signatures,
    /// Policy servers that did not answer of late: whoever is not waited for does not ask them.
    pub(crate) silent_judges: waits::Waits<OwnedServerName>,
    /// Closed accounts whose rooms could not all be left of late.
    pub(crate) departing: waits::Waits<ruma::OwnedUserId>,
    /// What rooms tell of themselves, and by which state.
    pub(crate) summaries: sizes::Summaries,
    /// Rooms whose state was redacted, or shown again, of late, and when: of those it is worked out each time.
    pub(crate) retold: Mutex<HashMap<RoomNid, u64>>,
    /// The public rooms of the other servers of the network.
    pub(crate) lists: directory::Lists,
    /// What is left of trees of spaces that are shown page by page.
    pub(crate) walks: directory::Walks,
    /// What has been taken away that had expired.
    pub(crate) expired: retention::Done,
    /// Whose changed names and pictures rooms are being told of.
    pub(crate) announcing: announce::Announcing,
    /// Transactions up to this position are forgotten.
    forgotten: AtomicU64,
}

impl Rooms {
    /// The rooms of a server.
    pub fn new(deps: Deps, config: Config) -> Self {
        let judge = Live::new(serve::policy::Judge::of(&config, &deps.key));
        let Deps { store, accounts, world, server, key, weak_keys, peers, services } = deps;
        let inner = Inner {
            store,
            accounts,
            world,
            server,
            key,
            weak_keys,
            peers,
            services,
            config: Live::new(config),
            turns: turn::Turns::default(),
            delayed: tokio::sync::Notify::new(),
            shut: tokio::sync::Notify::new(),
            crowded: oversight::heads::Crowded::default(),
            resolved: Cache::new(1_000),
            resolutions: receive::Resolutions::default(),
            servers: sizes::servers_by_state(),
            gone: Cache::new(100),
            users: Cache::new(100),
            seers: Cache::new(1_000),
            hopeless: receive::Hopeless::default(),
            nothing_older: receive::Hopeless::default(),
            slow: receive::Hopeless::default(),
            tellers: receive::Tellers::default(),
            unhelped: receive::Hopeless::default(),
            blank: receive::Hopeless::default(),
            joins: remote::Joins::default(),
            partial: partial::Partial::default(),
            policy_servers: Cache::new(10_000),
            judge,
            policy_signatures: policy_server::no_signatures(),
            silent_judges: waits::Waits::default(),
            departing: waits::Waits::default(),
            summaries: sizes::summaries(),
            retold: Mutex::default(),
            lists: directory::Lists::default(),
            walks: directory::Walks::default(),
            expired: retention::Done::default(),
            announcing: announce::Announcing::default(),
            forgotten: AtomicU64::new(0),
        };
        Self(Arc::new(inner))
    }

    /// The name of this server.
    pub fn server(&self) -> &ServerName {
        &self.0.server
    }

    /// Whether this server has to do with another one, or is it.
    pub fn takes_part(&self, server: &ServerName) -> bool {
        self.0.takes_part(server)
    }

    /// Whether it has, or may turn out to have once there is a network: what is for the server's users is kept.
    pub fn may_take_part(&self, server: &ServerName) -> bool {
        *server == self.0.server || self.0.peers.may_take_part(server)
    }

    /// The section as it is now.
    pub fn config(&self) -> Arc<Config> {
        self.0.config()
    }

    /// Goes on with another section: what is shown and let in from now on is judged by it.
    pub fn reconfigure(&self, config: Config) {
        let inner = &self.0;
        if inner.config().retention.is_none() && config.retention.is_some() {
            // Whoever names media that come after that has seen the new section.
            inner.expired.noted_since(inner.world.now() + 1_000);
        }
        inner.judge.set(serve::policy::Judge::of(&config, &inner.key));
        inner.config.set(config);
    }

    /// The store, for the read side.
    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }
}

impl Rooms {
    /// Forgets what is no longer needed: transactions older than two days, delayed events long sent, sticky events that are no
    /// longer. Gives how many. Meant to be called every few
    /// minutes.
    pub async fn sweep(&self) -> Result<usize> {
        const AT_ONCE: usize = 1_000;
        const KEPT_MS: u64 = 2 * 24 * 60 * 60 * 1_000;
        let before = self.0.world.now().saturating_sub(KEPT_MS);
        let mut swept = self.sweep_delayed().await?;
        swept += self.sweep_sticky().await?;
        loop {
            let mut tx = chappe_store::Tx::new();
            let from = (self.0.forgotten.load(Relaxed), before);
            let (count, gone) = tx.forget_transactions(&self.0.store.read(), from, AT_ONCE).await?;
            if count == 0 {
                return Ok(swept);
            }
            self.0.store.commit(tx).await?;
            self.0.forgotten.store(gone, Relaxed);
            swept += count;
        }
    }
}

impl Inner {
    /// The section as it is now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.get()
    }

    /// The access rules of the network as they are now; none: whoever the rooms let in.
    pub(crate) fn access(&self) -> Option<Arc<AccessRules>> {
        self.config().access.clone()
    }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rooms of {}", self.0.server)
    }
}
