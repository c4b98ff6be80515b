//! Media: blobs, thumbnails, remote media, previews of web pages.
//!
//! Bytes lie on disk under random names that have nothing to do with media ids; what is known of them lies in the
//! store. Media of other servers are fetched once, through [`RemoteMedia`], and kept.

mod animation;
mod blobs;
mod config;
mod error;
mod fetch;
mod inspect;
mod keeping;
mod memory;
mod picture;
mod places;
mod preview;
mod quarantine;
mod remote;
mod stewardship;
mod thumbnail;
mod unnamed;
mod upkeep;
mod upload;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use chappe_store::Store;
use chappe_world::{Live, World};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Semaphore;

use self::{blobs::Blobs, memory::Memory, places::Places, upkeep::RemoteSpace};
pub use self::{
    config::{Config, Previews},
    error::Error,
    fetch::{Content, Reach},
    inspect::Inspector,
    places::Place,
    preview::{Address, Properties, is_host_pattern},
    remote::{Pieces, RemoteContent, RemoteError, RemoteMedia},
    stewardship::{Deletion, MediumInfo, Usage},
    thumbnail::{Method, Wanted},
    upload::{Created, Upload},
};

/// What [`Media`] is built from.
pub struct Deps {
    /// The store.
    pub store: Store,
    /// The outside world.
    pub world: World,
    /// The name of this server.
    pub server_name: OwnedServerName,
    /// The folder of the blobs.
    pub directory: PathBuf,
    /// Media of other servers.
    pub remote: Arc<dyn RemoteMedia>,
    /// Who looks at media before they are given out, if anybody.
    pub inspector: Option<Arc<dyn Inspector>>,
}

/// The media of this server: a handle, clones share it.
#[derive(Clone)]
pub struct Media(Arc<Inner>);

type Turns = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

struct Inner {
    store: Store,
    world: World,
    server_name: OwnedServerName,
    blobs: Blobs,
    remote: Arc<dyn RemoteMedia>,
    inspector: Option<Arc<dyn Inspector>>,
    config: Live<Config>,
    /// What is being fetched or made, so that it is done once.
    turns: Turns,
    /// Thumbnails that may be in the making.
    making: Arc<Semaphore>,
    /// The same by whoever asks.
    making_for: Places,
    /// Blob and size → whether the picture is small enough as it is, or else nothing can be made of it.
    unmade: Memory<(String, String), bool>,
    /// Uploads that may be on their way, by user.
    uploading_for: Places,
    /// When media were given out, as far as it is not written yet.
    seen: Seen,
    /// Media of other servers that may be on their way.
    fetching: Semaphore,
    /// The same, of those that come slowly.
    fetching_slowly: Semaphore,
    /// The same by server.
    fetching_from: Places,
    /// The same by user.
    fetching_for: Places,
    /// What came of a medium of another server that could not be had, by server and id.
    unfetched: Memory<String, fetch::Unfetched>,
    /// What media of other servers take up, as far as it is known.
    remote_space: Mutex<RemoteSpace>,
    /// Web pages that may be on their way.
    previewing: Semaphore,
    /// Web pages that could not be had, by the hash of the address.
    failures: Memory<[u8; 32], ()>,
    /// What previews take up, once it is known.
    preview_space: Mutex<Option<u64>>,
    /// How many media were removed because only expired events named them.
    unnamed: AtomicU64,
}

/// When media of some server and id were last given out, in milliseconds since the Unix epoch.
type Seen = Mutex<HashMap<(OwnedServerName, String), u64>>;

impl Media {
    /// Opens the folder and removes what a crash left half-written; what it left without a name goes soon after.
    pub async fn open(deps: Deps, config: Config) -> Result<Self, Error> {
        let Deps { store, world, server_name, directory, remote, inspector } = deps;
        let (blobs, marked) = Blobs::open(directory).await?;
        let some = |count: usize| Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS));
        let media = Self(Arc::new(Inner {
            store,
            world,
            server_name,
            blobs,
            remote,
            inspector,
            turns: Turns::default(),
            making: Arc::new(some(config.thumbnails_at_once)),
            making_for: Places::new(config.thumbnails_at_once_per_user),
            unmade: Memory::new(thumbnail::UNMADE_MS),
            uploading_for: Places::new(config.uploads_at_once_per_user),
            seen: Seen::default(),
            fetching: some(config.remote_at_once),
            fetching_slowly: some(config.remote_at_once.saturating_mul(places::SLOW)),
            fetching_from: Places::new(config.remote_at_once_per_server),
            fetching_for: Places::new(config.remote_at_once_per_user),
            unfetched: Memory::new(fetch::UNFETCHED_MS),
            remote_space: Mutex::default(),
            previewing: some(config.previews.at_once),
            failures: Memory::new(preview::FAILED_MS),
            preview_space: Mutex::default(),
            unnamed: AtomicU64::new(0),
            config: Live::new(config),
        }));
        media.settle_later(marked);
        Ok(media)
    }

    /// The section as it is now.
    pub fn config(&self) -> Arc<Config> {
        self.0.config.get()
    }

    /// Goes on with another section. How much is done at a time stays as it is.
    pub fn reconfigure(&self, config: Config) {
        self.0.config.set(config);
    }

    /// Whether a server name is this server's.
    pub fn is_local(&self, server: &ServerName) -> bool {
        self.0.server_name == server
    }

    /// One after the other: the turn among those who do the same.
    async fn turn(&self, what: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.turns.lock();
            if turns.len() > 1_000 {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(what.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

impl std::fmt::Debug for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Media of {}", self.0.server_name)
    }
}

#[cfg(test)]
mod tests;
