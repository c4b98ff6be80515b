//! The outbound half: signed requests to other servers, within limits, with errors that tell a client nothing odd.

mod call;
mod exchange;
mod refusals;

use std::sync::Arc;

use chappe_rules::build::SigningKey;
use chappe_store::Store;
use chappe_web::{Error, Rate, RateLimiter};
use chappe_world::{Live, World};
use ruma::{CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UInt};

pub(crate) use self::{
    exchange::segment,
    refusals::{has_errcode, is_astray, refusal},
};
use crate::{
    AllowList, Config, KeyRing,
    backoff::Backoff,
    discovery::Discovery,
    keys::{Pins, own_document},
    link::Link,
    places::{Paces, Places},
    prompt::Prompt,
};

/// Long answers of each kind that are read at the same time, and more of them from servers that are slow.
const LONG_AT_ONCE: usize = 4;
/// Of each kind, how many one server has: while it is asked for the members of a room that was joined before they were here,
/// it may have to be asked for what is before an event.
const LONG_OF_ONE: usize = 2;
/// Room for what was read of each kind and is being worked on, in KiB; one server has half of it.
const READ_KIB: usize = 512 << 10;

/// What [`Network`] is built from.
#[derive(Debug)]
pub struct NetworkDeps {
    /// Time, randomness, the network.
    pub world: World,
    /// Keys, waiting times.
    pub store: Store,
    /// The name of this server.
    pub server: OwnedServerName,
    /// What it signs with.
    pub key: Arc<SigningKey>,
}

/// Other servers, as this one reaches them: a handle, clones share it.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    world: World,
    store: Store,
    server: OwnedServerName,
    key: Arc<SigningKey>,
    config: Live<Config>,
    allowed: AllowList,
    link: Link,
    pins: Pins,
    keys: KeyRing,
    backoff: Backoff,
    prompt: Prompt,
    limiter: RateLimiter,
    /// Answers that are long: those that a user waits for, and the others.
    joins: Long,
    states: Long,
}

/// Places for long answers while they are read, and room for them afterwards: whoever checks one may wait for many others, and
/// keeps nobody from reading meanwhile.
struct Long {
    reading: Paces,
    read: Places,
}

impl Long {
    fn new(world: &World) -> Self {
        let reading = Paces::new(world.clone(), LONG_AT_ONCE, LONG_OF_ONE);
        Self { reading, read: Places::new(READ_KIB, READ_KIB / 2) }
    }
}

impl Network {
    /// The outbound half of the federation.
    pub fn new(deps: NetworkDeps, config: Config) -> Self {
        let NetworkDeps { world, store, server, key } = deps;
        let allowed = AllowList::new(config.allow.as_deref());
        let link = Link { world: world.clone(), discovery: Discovery::new(world.clone(), &config) };
        let pins = Pins::new(&config.pinned_keys);
        let backoff = Backoff::new(world.clone(), store.clone(), &config);
        let (ways, trust) = ((link.clone(), backoff.clone()), (allowed.clone(), pins.clone()));
        let keys = KeyRing::new(store.clone(), ways, trust, &config);
        let [joins, states] = [(); 2].map(|()| Long::new(&world));
        let limiter = RateLimiter::default();
        Self(Arc::new(Inner {
            world,
            store,
            server,
            key,
            config: Live::new(config),
            allowed,
            link,
            pins,
            keys,
            backoff,
            prompt: Prompt::default(),
            limiter,
            joins,
            states,
        }))
    }

    /// The name of this server.
    pub fn server(&self) -> &ServerName {
        &self.0.server
    }

    /// The list of servers that are talked with; replacing it takes effect at once.
    pub fn allowed(&self) -> &AllowList {
        &self.0.allowed
    }

    /// The keys of other servers.
    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.0.pins
    }

    pub(crate) fn link(&self) -> &Link {
        &self.0.link
    }

    pub(crate) fn backoff(&self) -> &Backoff {
        &self.0.backoff
    }

    pub(crate) fn prompt(&self) -> &Prompt {
        &self.0.prompt
    }

    pub(crate) fn world(&self) -> &World {
        &self.0.world
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The section as it is now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.0.config.get()
    }

    /// Goes on with another section, as far as it is read when it is needed: rates, lifetimes, times to wait for an answer. Who
    /// is talked with is said by [`Network::allowed`].
    pub fn reconfigure(&self, config: Config) {
        self.0.config.set(config);
    }

    /// Counts what somebody asks of this server; 429 when it is too much.
    pub(crate) fn count(&self, action: &'static str, subject: &str, rate: Rate) -> Result<(), Error> {
        self.0.limiter.check(action, subject, rate)
    }

    /// The document that tells other servers our keys.
    pub(crate) fn own_keys(&self) -> CanonicalJsonObject {
        own_document(&self.0.server, &self.0.key, &self.config(), self.now())
    }

    /// Adds our signature to what we vouch for.
    pub(crate) fn countersign(&self, document: &mut CanonicalJsonObject) {
        self.0.key.sign_json(&self.0.server, document);
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        self.0.world.now()
    }

    pub(crate) fn timestamp(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.now()))
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network of {}", self.0.server)
    }
}
