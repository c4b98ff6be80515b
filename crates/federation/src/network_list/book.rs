//! The list that is followed: kept on disk, applied to who is talked with, whose keys are believed and where addresses belong.
//!
//! A list closes what it does not name, and so does the lack of one: before the first list, and once the last one has expired,
//! nobody is talked with. What an expired list says of keys and addresses stays until the next one: it opens nothing, and
//! without it people could sign up where they do not belong. The same goes for a server of the list whose own time is over.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use chappe_identity::{MapBook, MapLayer};
use chappe_rules::{check::WeakKeys, json};
use chappe_store::{
    Json, Store, Tx,
    network_list::{HeldList, NetworkLists},
    server_keys::ServerKeys,
};
use chappe_world::{Limits, World};
use http::StatusCode;
use parking_lot::RwLock;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Mutex;

use super::{InvalidList, MAX_BYTES, NetworkList, signatures};
use crate::{
    AllowList, Network, NetworkConfig,
    keys::{Pins, laid_aside},
    weak_keys,
};

/// Where servers are asked for the list; not of the specification.
pub(crate) const PATH: &str = "/_matrix/federation/unstable/chappe/network_list";
/// How far the clock of whoever signed may be ahead of ours, in milliseconds.
const SKEW: u64 = 3_600_000;
/// How often it is looked whether the list, or the time of a server on it, has come to its end: wall clocks jump.
const LOOK: Duration = Duration::from_secs(10);
/// When publishers are asked again that gave no list; twice as long after each further failure, up to the usual interval.
const FIRST_RETRY: Duration = Duration::from_mins(1);

/// What [`ListBook`] is built from.
#[derive(Debug)]
pub struct ListDeps {
    /// Time.
    pub world: World,
    /// Where the list is kept.
    pub store: Store,
    /// The name of this server.
    pub server: OwnedServerName,
    /// The section of the configuration.
    pub config: NetworkConfig,
    /// What follows the list; nothing does beside a stopped server.
    pub network: Option<Network>,
    /// Where addresses belong.
    pub map: MapBook,
}

/// The list of this server's network: a handle, clones share it.
#[derive(Clone)]
pub struct ListBook(Arc<Inner>);

struct Inner {
    deps: ListDeps,
    weak: WeakKeys,
    allowed: AllowList,
    pins: Pins,
    state: RwLock<State>,
    /// Held while a list is applied, so that an older one never replaces a newer one.
    applying: Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Arc<Held>>,
    /// Whether all that the list says is followed.
    enacted: bool,
    /// Who is let in; none where the network is closed.
    members: Option<BTreeSet<OwnedServerName>>,
    asked: Option<(u64, Result<(), String>)>,
}

impl State {
    /// Who is to be let in at a time.
    fn members_at(&self, now: u64) -> Option<BTreeSet<OwnedServerName>> {
        self.held.as_ref()?.list.members(now)
    }
}

/// A list that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it says.
    pub list: NetworkList,
    /// The signed document, as canonical JSON.
    pub text: Bytes,
}

/// What became of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Applied {
    /// It was the one that is held.
    Known,
    /// It is followed from now on.
    New,
}

/// How it stands.
#[derive(Clone, Debug)]
pub struct ListStatus {
    /// The list that was applied last, expired or not.
    pub held: Option<Arc<Held>>,
    /// Whether it is good: otherwise nobody is talked with.
    pub open: bool,
    /// When publishers were asked last, in milliseconds since 1970, and why that was in vain.
    pub asked: Option<(u64, Result<(), String>)>,
}

/// Why a list is not applied.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It is none, or is not believed.
    #[error(transparent)]
    Invalid(#[from] InvalidList),
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It was signed later than now.
    #[error("it was signed in the future: one of two clocks is wrong")]
    Future,
    /// It is older than the one that was applied last, or another one with the same number.
    #[error("it has the number {given}, and another one with the number {held} was applied before")]
    Older {
        /// Its number.
        given: u64,
        /// The number of the one before.
        held: u64,
    },
    /// No publisher gave a list.
    #[error("no publisher gave a list: {0}")]
    Unreachable(String),
    /// The addresses of the list could not be taken.
    #[error(transparent)]
    Identity(#[from] chappe_identity::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
}

impl ListBook {
    /// The list as it was applied last, if the trust roots of the configuration still stand behind it.
    pub async fn open(deps: ListDeps) -> Result<Self, ListError> {
        let network = deps.network.as_ref();
        let allowed = network.map_or_else(AllowList::default, |network| network.allowed().clone());
        let pins = network.map_or_else(Pins::default, |network| network.pins().clone());
        let state = RwLock::default();
        let book =
            Self(Arc::new(Inner { deps, weak: weak_keys(), allowed, pins, state, applying: Mutex::new(()) }));
        book.0.allowed.follow_network(std::iter::empty());
        if let Some(Json(held)) = book.stored().await? {
            match NetworkList::verify(held.text.as_bytes(), &book.0.deps.config, &book.0.weak) {
                Ok((list, layer, text)) => book.enact(Held { list, text: text.into() }, layer).await?,
                Err(error) => tracing::error!(%error, "the list of the network that is held is not followed"),
            }
        }
        Ok(book)
    }

    /// The section this was built with.
    pub fn config(&self) -> &NetworkConfig {
        &self.0.deps.config
    }

    /// How it stands.
    pub fn status(&self) -> ListStatus {
        let state = self.0.state.read();
        ListStatus { held: state.held.clone(), open: state.members.is_some(), asked: state.asked.clone() }
    }

    /// Applies a signed list; nothing changes unless it is right, good at this moment and newer.
    pub async fn apply(&self, bytes: &[u8]) -> Result<Applied, ListError> {
        let _alone = self.0.applying.lock().await;
        let Inner { deps, weak, .. } = &*self.0;
        let (list, layer, text) = NetworkList::verify(bytes, &deps.config, weak)?;
        let now = deps.world.now();
        if list.expires_at <= now {
            return Err(ListError::Expired);
        }
        if list.issued_at > now.saturating_add(SKEW) {
            return Err(ListError::Future);
        }
        let held = self.stored().await?;
        match &held {
            Some(Json(old)) if same_list(old, &list) => {
                // Trust roots that sign as well are no other list; what was signed stays signed.
                let text = signatures::joined(&old.text, &text, &deps.config, weak);
                if text != old.text {
                    let mut tx = Tx::new();
                    tx.expect::<NetworkLists>(&deps.config.name, held.as_ref());
                    tx.put::<NetworkLists>(
                        &deps.config.name,
                        &Json(HeldList { text: text.clone(), ..old.clone() }),
                    );
                    deps.store.commit(tx).await?;
                }
                let same = Held { list, text: text.into() };
                if self.is_enacted(&same) {
                    self.look();
                } else {
                    self.enact(same, layer).await?;
                }
                return Ok(Applied::Known);
            }
            // A list behind which no trust root stands any more has no say, or a stolen root could end the network.
            Some(Json(held)) if held.sequence >= list.sequence && self.stands(held) => {
                return Err(ListError::Older { given: list.sequence, held: held.sequence });
            }
            _ => {}
        }
        let kept = Json(HeldList { sequence: list.sequence, applied_at: now, text: text.clone() });
        let mut tx = Tx::new();
        tx.expect::<NetworkLists>(&deps.config.name, held.as_ref());
        tx.put::<NetworkLists>(&deps.config.name, &kept);
        self.keep_old_keys(&mut tx, &list, now);
        deps.store.commit(tx).await?;
        let (sequence, servers) = (list.sequence, list.servers.len());
        tracing::info!(network = %deps.config.name, sequence, servers, "another list of the network is followed");
        self.enact(Held { list, text: text.into() }, layer).await?;
        Ok(Applied::New)
    }

    /// Keeps the keys of servers of which the next list says none: what they signed stands in rooms, and who is gone is not asked
    /// for them.
    fn keep_old_keys(&self, tx: &mut Tx, next: &NetworkList, now: u64) {
        let Some(held) = self.0.state.read().held.clone() else { return };
        for (server, member) in &held.list.servers {
            let next = next.servers.get(server);
            if next.is_some_and(|next| !next.verify_keys.is_empty()) {
                continue;
            }
            for (id, key) in member.pinned() {
                let place = (server.clone(), id.to_string());
                tx.put::<ServerKeys>(&place, &Json(laid_aside(key, now, next.is_none())));
            }
        }
    }

    /// Asks every publisher, and applies the newest list.
    pub async fn fetch(&self) -> Result<Applied, ListError> {
        let (mut best, mut failed) = (None, None);
        for publisher in self.0.deps.config.publishers.iter().filter(|name| **name != self.0.deps.server) {
            let applied = match self.ask(publisher).await {
                Ok(bytes) => self.apply(&bytes).await,
                Err(why) => Err(ListError::Unreachable(format!("{publisher}: {why}"))),
            };
            match applied {
                Ok(applied) => best = best.max(Some(applied)),
                Err(error) => {
                    tracing::warn!(%publisher, %error, "no list of the network from here");
                    failed = Some(error);
                }
            }
        }
        let outcome = match (best, failed) {
            (Some(applied), _) => Ok(applied),
            (None, Some(error)) => Err(error),
            (None, None) => Err(ListError::Unreachable("there is none but this server".to_owned())),
        };
        let said = outcome.as_ref().map(drop).map_err(ToString::to_string);
        self.0.state.write().asked = Some((self.0.deps.world.now(), said));
        outcome
    }

    async fn ask(&self, publisher: &ServerName) -> Result<Bytes, String> {
        let network = self.0.deps.network.as_ref().ok_or("the server does not run")?;
        let http = http::Request::get(PATH).body(Bytes::new()).map_err(|error| error.to_string())?;
        let limits = Limits { max_bytes: MAX_BYTES as u64, deadline: network.config().timeout() };
        let answer =
            network.link().exchange(publisher, http, limits).await.map_err(|error| error.to_string())?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        Err(format!("status {}", answer.status()))
    }

    /// Asks publishers at the interval of the configuration, and closes the network when the list has expired, to a server
    /// when its time is over.
    pub async fn follow(self) {
        let world = &self.0.deps.world;
        let others = self.config().publishers.iter().any(|publisher| *publisher != self.0.deps.server);
        let mut look = world.interval(LOOK);
        let (mut due, mut failures) = (world.instant(), 0);
        while !world.is_stopping() {
            tokio::select! {
                biased;
                () = world.stopping() => return,
                _ = look.tick() => {}
            }
            self.look();
            if others && world.instant() >= due {
                let mut fetching = std::pin::pin!(self.fetch());
                // A publisher that takes its time does not put the end off.
                let fetched = loop {
                    tokio::select! {
                        biased;
                        () = world.stopping() => return,
                        _ = look.tick() => self.look(),
                        // What went wrong was logged, and is shown.
                        fetched = &mut fetching => break fetched,
                    }
                };
                failures = if fetched.is_ok() { 0 } else { failures + 1 };
                due = world.instant() + self.pause(failures);
            }
        }
    }

    /// For how long publishers are left alone after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        let interval = Duration::from_secs(self.config().fetch_seconds);
        match failures.checked_sub(1) {
            None => interval,
            Some(doubled) => FIRST_RETRY.saturating_mul(1 << doubled.min(20)).min(interval),
        }
    }

    /// Lets in who is to be let in now, if that has changed: by the end of the list or the time of a server, or because the
    /// clock was set.
    fn look(&self) {
        // Held to the end, so that the list before never comes back over one that is enacted meanwhile.
        let mut state = self.0.state.write();
        let members = state.members_at(self.0.deps.world.now());
        if members != state.members {
            self.let_in(&mut state, members);
        }
    }

    async fn enact(&self, held: Held, layer: MapLayer) -> Result<(), ListError> {
        let pinned = held.list.servers.iter().map(|(server, member)| (&**server, member.pinned()));
        self.0.pins.follow_network(pinned);
        {
            // Who is let in comes first: whatever becomes of the rest, nobody stays who was taken off.
            let mut state = self.0.state.write();
            (state.held, state.enacted) = (Some(Arc::new(held)), false);
            let members = state.members_at(self.0.deps.world.now());
            self.let_in(&mut state, members);
        }
        self.0.deps.map.follow_network(layer).await?;
        self.0.state.write().enacted = true;
        Ok(())
    }

    fn is_enacted(&self, same: &Held) -> bool {
        let state = self.0.state.read();
        state.enacted && state.held.as_deref() == Some(same)
    }

    /// Lets these servers of the list that is held in, or nobody if it has expired.
    fn let_in(&self, state: &mut State, members: Option<BTreeSet<OwnedServerName>>) {
        let Inner { deps, allowed, .. } = &*self.0;
        let sequence = state.held.as_ref().map(|held| held.list.sequence);
        allowed.follow_network(members.iter().flatten().map(|server| &**server));
        if members.is_none() {
            tracing::error!(sequence, "the list of the network has expired: no other server is talked with");
        } else if members.as_ref().is_some_and(|members| !members.contains(&deps.server)) {
            tracing::warn!(sequence, server = %deps.server, "this server is not on the list of its network at this time");
        }
        state.members = members;
    }

    /// Whether a trust root of the configuration stands behind a list, even if what it says is not understood here: only
    /// where all that have signed are known to be trusted no more does it stand for nothing.
    fn stands(&self, held: &HeldList) -> bool {
        let object = json::object(held.text.as_bytes());
        object.map_or(true, |held| !signatures::standing(&held, self.config(), &self.0.weak).is_empty())
    }

    async fn stored(&self) -> Result<Option<Json<HeldList>>, chappe_store::Error> {
        self.0.deps.store.read().get::<NetworkLists>(&self.config().name).await
    }
}

fn same_list(held: &HeldList, list: &NetworkList) -> bool {
    held.sequence == list.sequence && NetworkList::read(held.text.as_bytes()).is_ok_and(|held| held == *list)
}

impl std::fmt::Debug for ListBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ListBook of {}", self.config().name)
    }
}

#[cfg(test)]
mod tests;
