//! From a server's name to where it is reached (server-server API, "Resolving server names").

mod well_known;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use chappe_rules::names;
use chappe_world::{Host, World};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::time::Instant;

use self::well_known::{Delegation, Missing};
use crate::Config;

/// The port of the federation API when nothing else is said.
const DEFAULT_PORT: u16 = 8448;
/// How long found SRV records are kept.
const SERVICES_LIFETIME: Duration = Duration::from_mins(5);
/// How long it is kept that a page could not be had, after the first failure; twice as long after each further one, up to the
/// longest.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(30);
const LONGEST_UNKNOWN: Duration = Duration::from_mins(10);
/// How long a page that could not be had is waited for where the server was not there without it.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it is kept what nobody was asked for.
const UNASKED_LIFETIME: Duration = Duration::from_hours(24);
/// Longer than this nothing is kept, whatever the configuration says.
const LONGEST_LIFETIME: Duration = Duration::from_hours(24 * 365);
/// How many names are remembered.
const REMEMBERED: usize = 20_000;
/// How many hosts of one name are tried.
const MAX_HOSTS: usize = 4;

/// Where a server may be reached, the best first; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// All carry the same certificate name and `Host` header.
    pub(crate) hosts: Vec<Host>,
}

/// It is not known where a server is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolvable {
    /// The name cannot be one that a server is reached by.
    #[error("{0} is not a name that a server is reached by")]
    Name(String),
    /// Too much is under way to find out.
    #[error("too much is under way")]
    Busy,
}

/// Finds servers and remembers where they were: a handle, clones share it.
#[derive(Clone)]
pub(crate) struct Discovery(Arc<Inner>);

struct Inner {
    world: World,
    lifetimes: well_known::Lifetimes,
    found: Cache<OwnedServerName, Found>,
    delegations: Cache<String, Remembered>,
    /// Pages that are being asked for, by host.
    under_way: Mutex<HashMap<String, LookUp>>,
}

type LookUp = Shared<BoxFuture<'static, Result<Remembered, Unresolvable>>>;

/// One of them, for as long as it lasts, however it ends.
struct UnderWay<'a>(&'a Discovery, &'a str);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.under_way.lock().remove(self.1);
    }
}

#[derive(Clone)]
struct Found {
    target: Target,
    until: Instant,
}

#[derive(Clone)]
struct Remembered {
    delegation: Option<OwnedServerName>,
    until: Instant,
    /// Failures in a row, for a delegation that went missing.
    failures: u32,
    /// Where it is not known whether there is a delegation: from when on that is not relied on if the server is not there.
    doubtful_from: Option<Instant>,
    /// Whether the server was not there since.
    was_missed: bool,
}

impl Discovery {
    pub(crate) fn new(world: World, config: &Config) -> Self {
        let lifetime = |seconds: u64| Duration::from_secs(seconds).min(LONGEST_LIFETIME);
        let lifetimes = well_known::Lifetimes {
            unsaid: lifetime(config.well_known_lifetime),
            absent: lifetime(config.well_known_retry),
        };
        let (found, delegations) = (Cache::new(REMEMBERED), Cache::new(REMEMBERED));
        Self(Arc::new(Inner { world, lifetimes, found, delegations, under_way: Mutex::default() }))
    }

    /// Where `server` is reached.
    pub(crate) async fn target(&self, server: &ServerName) -> Result<Target, Unresolvable> {
        let now = self.0.world.instant();
        if let Some(found) = self.0.found.get(server)
            && found.until > now
        {
            return Ok(found.target);
        }
        let (target, until) = self.resolve(server).await?;
        self.0.found.insert(server.to_owned(), Found { target: target.clone(), until });
        Ok(target)
    }

    /// Forgets where `server` was: it was not there. A page that could not be had may say where it is: it is
    /// asked for again, and not forgotten how often that was in vain.
    pub(crate) fn forget(&self, server: &ServerName) {
        self.0.found.remove(server);
        let Ok(name) = Name::parse(server) else { return };
        let now = self.0.world.instant();
        if let Some(known) = self.0.delegations.get(name.host.as_str())
            && let Some(from) = known.doubtful_from
        {
            let until = if from <= now { now } else { known.until };
            self.0.delegations.insert(name.host, Remembered { until, was_missed: true, ..known });
        }
    }

    async fn resolve(&self, server: &ServerName) -> Result<(Target, Instant), Unresolvable> {
        let name = Name::parse(server)?;
        if name.literal || name.port.is_some() {
            let target = name.target(vec![(name.host.clone(), name.port.unwrap_or(DEFAULT_PORT))]);
            return Ok((target, self.0.world.instant() + UNASKED_LIFETIME));
        }
        let (delegation, until) = self.delegation(&name.host).await?;
        let name = match delegation.as_deref().map(Name::parse) {
            Some(Ok(delegated)) => delegated,
            _ => name,
        };
        if name.literal || name.port.is_some() {
            let target = name.target(vec![(name.host.clone(), name.port.unwrap_or(DEFAULT_PORT))]);
            return Ok((target, until));
        }
        let until = until.min(self.0.world.instant() + SERVICES_LIFETIME);
        Ok((name.target(self.services(&name.host).await), until))
    }

    /// The hosts that SRV records name, or the name itself on the default port.
    async fn services(&self, host: &str) -> Vec<(String, u16)> {
        for service in ["_matrix-fed", "_matrix"] {
            let found = self.0.world.services(&format!("{service}._tcp.{host}")).await;
            let usable = found.unwrap_or_default().into_iter();
            let usable: Vec<(String, u16)> = usable
                .filter(|service| !service.target.is_empty() && service.port != 0)
                .map(|service| (service.target, service.port))
                .take(MAX_HOSTS)
                .collect();
            if !usable.is_empty() {
                return usable;
            }
        }
        vec![(host.to_owned(), DEFAULT_PORT)]
    }

    /// What the host's well-known page delegates to, and until when that holds. Where the page could not be had, and the server was
    /// there without, nobody waits for it again.
    async fn delegation(&self, host: &str) -> Result<(Option<OwnedServerName>, Instant), Unresolvable> {
        let now = self.0.world.instant();
        let remembered = self.0.delegations.get(host);
        if let Some(remembered) = &remembered
            && remembered.until > now
        {
            return Ok((remembered.delegation.clone(), remembered.until));
        }
        let look_up = self.look_up(host);
        let fresh = match remembered.filter(|remembered| remembered.doubtful_from.is_some()) {
            None => Some(look_up.await),
            Some(doubtful) if doubtful.was_missed => self.0.world.timeout(PATIENCE, look_up).await,
            Some(_) => None,
        };
        // What is not known yet is not kept either.
        Ok(fresh.transpose()?.map_or((None, now), |fresh| (fresh.delegation, fresh.until)))
    }

    /// Asks for a host's page; whoever needs it meanwhile waits for the same answer. As a task of its own: the answer is remembered
    /// whether or not anybody still waits for it.
    fn look_up(&self, host: &str) -> LookUp {
        let mut under_way = self.0.under_way.lock();
        if let Some(look_up) = under_way.get(host) {
            return look_up.clone();
        }
        let (discovery, asked, now) = (self.clone(), host.to_owned(), self.0.world.instant());
        let stop = self.0.world.tasks().stop_signal();
        let work = async move {
            let _under_way = UnderWay(&discovery, &asked);
            let asking = Box::pin(discovery.ask(&asked, now));
            stop.run_until_cancelled(asking).await.unwrap_or(Err(Unresolvable::Busy))
        };
        let ended = self.0.world.spawn("well-known page", work);
        let look_up = ended.map(|ended| ended.unwrap_or(Err(Unresolvable::Busy))).boxed().shared();
        under_way.insert(host.to_owned(), look_up.clone());
        look_up
    }

    async fn ask(&self, host: &str, now: Instant) -> Result<Remembered, Unresolvable> {
        let fresh = match well_known::ask(&self.0.world, host, &self.0.lifetimes).await {
            Ok(Delegation { to, lifetime }) => Remembered {
                delegation: Some(to),
                until: now + lifetime,
                failures: 0,
                doubtful_from: None,
                was_missed: false,
            },
            // Nothing was learned.
            Err(Missing::Busy) => return Err(Unresolvable::Busy),
            Err(error) => {
                tracing::debug!(host, %error, "no delegation");
                self.missing(&error, self.0.delegations.get(host), now)
            }
        };
        self.0.delegations.insert(host.to_owned(), fresh.clone());
        Ok(fresh)
    }

    /// A delegation that may still be there is kept for a few failures; otherwise there is none.
    fn missing(&self, error: &Missing, before: Option<Remembered>, now: Instant) -> Remembered {
        let absent = self.0.lifetimes.absent;
        let is_unknown = matches!(error, Missing::Unknown(_));
        let failures = before.as_ref().map_or(0, |before| before.failures).saturating_add(1);
        let kept = before.and_then(|before| before.delegation);
        let delegation = kept.filter(|_| is_unknown && failures <= 3);
        let wait = match delegation {
            Some(_) => absent / 12,
            None if is_unknown => {
                UNKNOWN_LIFETIME.saturating_mul(1 << (failures - 1).min(8)).min(LONGEST_UNKNOWN)
            }
            None => (absent / 12).saturating_mul(1 << failures.min(8)),
        };
        let doubtful_from = (is_unknown && delegation.is_none()).then(|| now + UNKNOWN_LIFETIME);
        let until = now + wait.min(absent);
        Remembered { delegation, until, failures, doubtful_from, was_missed: false }
    }
}

/// A server name taken apart.
#[derive(Clone, Debug)]
struct Name {
    /// Lower case, an IPv6 address without brackets.
    host: String,
    port: Option<u16>,
    literal: bool,
    /// The name as it goes into the `Host` header.
    header: String,
}

impl Name {
    fn parse(server: &ServerName) -> Result<Self, Unresolvable> {
        let unresolvable = || Unresolvable::Name(server.to_string());
        let header = server.as_str().to_ascii_lowercase();
        let host = server.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let literal = host.parse::<IpAddr>().is_ok();
        if !names::is_strict(server) {
            return Err(unresolvable());
        }
        Ok(Self { host, port: server.port(), literal, header })
    }

    fn target(&self, places: Vec<(String, u16)>) -> Target {
        let host = |(connect, port)| Host {
            connect,
            port,
            tls_name: self.host.clone(),
            header: self.header.clone(),
        };
        Target { hosts: places.into_iter().map(host).collect() }
    }
}

#[cfg(test)]
mod tests;
