//! The handle: what it needs, and how its writers take turns.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use chappe_rules::appservice::Registrations;
use chappe_store::{Store, Tx};
use chappe_world::{Live, World};
use parking_lot::RwLock;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::{
    AccountsConfig, Error,
    appservices::Services,
    devices::SeenBuffer,
    filters::FilterCache,
    passwords::Turns,
    token_cache::TokenCache,
    uia_sessions::{Guesses, Sessions},
};

/// How often an operation is tried again when another writer was first.
pub(crate) const ATTEMPTS: usize = 20;

const STRIPES: usize = 256;

/// Everything keyed by a user or a device: a handle, clones share it.
#[derive(Clone)]
pub struct Accounts {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) world: World,
    pub(crate) server_name: OwnedServerName,
    config: Live<AccountsConfig>,
    pub(crate) cache: TokenCache,
    pub(crate) sessions: Sessions,
    pub(crate) guesses: Guesses,
    pub(crate) seen: SeenBuffer,
    pub(crate) filters: FilterCache,
    pub(crate) services: Services,
    /// Users whose accounts were closed and erased.
    pub(crate) erased: RwLock<BTreeSet<OwnedUserId>>,
    /// Turns for hashing passwords, and for estimating their strength.
    pub(crate) hashing: Turns,
    pub(crate) estimates: Turns,
    stripes: Vec<Mutex<()>>,
    /// Accounts did not end at some time since it was last looked who has no end.
    pub(crate) endless: AtomicBool,
}

impl Accounts {
    /// The accounts of a server without application services.
    pub fn new(store: Store, world: World, server_name: OwnedServerName, config: AccountsConfig) -> Self {
        Self::with_appservices(store, world, server_name, config, Registrations::default())
    }

    /// The accounts of a server.
    pub fn with_appservices(
        store: Store,
        world: World,
        server_name: OwnedServerName,
        config: AccountsConfig,
        appservices: Registrations,
    ) -> Self {
        let hashing = Turns::new(config.password.at_once, config.password.waiting);
        let stripes = std::iter::repeat_with(Mutex::default).take(STRIPES).collect();
        let (cache, sessions, seen) = (TokenCache::default(), Sessions::default(), SeenBuffer::default());
        let filters = FilterCache::default();
        let inner = Inner {
            store,
            world,
            server_name,
            endless: AtomicBool::new(config.validity.days == 0),
            config: Live::new(config),
            cache,
            sessions,
            guesses: Guesses::default(),
            seen,
            filters,
            services: Services::new(appservices),
            erased: RwLock::default(),
            hashing,
            estimates: Turns::for_estimates(),
            stripes,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The name of this server.
    pub fn server_name(&self) -> &ServerName {
        &self.inner.server_name
    }

    /// Whether a user id is one of this server's; the account need not exist.
    pub fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.inner.server_name
    }

    /// The section as it is now.
    pub fn config(&self) -> Arc<AccountsConfig> {
        self.inner.config.get()
    }

    /// Goes on with another section. How many passwords are hashed at a time stays as it is.
    pub fn reconfigure(&self, config: AccountsConfig) {
        let had = self.config();
        let ends_otherwise = had.validity != config.validity;
        let endless = config.validity.days == 0;
        self.inner.config.set(config);
        if endless {
            self.inner.endless.store(true, Relaxed);
        }
        if ends_otherwise {
            self.inner.cache.forget_all();
        }
    }

    /// Tells of other sections from now on.
    pub fn reconfigured(&self) -> watch::Receiver<()> {
        self.inner.config.changes()
    }

    /// A view of this moment, for functions that take one. Short-lived: never kept across a wait for the network.
    pub fn read(&self) -> chappe_store::Reader<'_> {
        self.inner.store.read()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn world(&self) -> &World {
        &self.inner.world
    }

    /// Commits a change of a user's and voids what is kept in memory of their tokens. In a task: what is queued is carried out
    /// even if whoever asked for it hangs up.
    pub async fn commit_of(&self, user: &UserId, tx: Tx) -> Result<(), Error> {
        let (accounts, user) = (self.clone(), user.to_owned());
        let work = async move {
            let done = accounts.store().commit(tx).await;
            accounts.inner.cache.forget(&user);
            done
        };
        self.world().spawn("change of a user", work).await.map_err(|_| Error::Busy)??;
        Ok(())
    }

    /// Waits for the turn among this process's writers of one user. For speed alone: expectations are the truth.
    pub(crate) async fn turn(&self, user: &UserId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        user.as_str().hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or(0);
        self.inner.stripes[index].lock().await
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Accounts of {}", self.inner.server_name)
    }
}
