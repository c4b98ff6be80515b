//! From a server's name to where it is reached (server-server API, "Resolving server names").

mod well_known;

use std::{net::IpAddr, sync::Arc, time::Duration};

use chappe_rules::names;
use chappe_world::{Host, World};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::time::Instant;

use self::well_known::{Delegation, Missing};
use crate::Config;

/// The port of the federation API when nothing else is said.
const DEFAULT_PORT: u16 = 8448;
/// How long found SRV records are kept.
const SERVICES_LIFETIME: Duration = Duration::from_mins(5);
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
}

impl Discovery {
    pub(crate) fn new(world: World, config: &Config) -> Self {
        let lifetime = |seconds: u64| Duration::from_secs(seconds).min(LONGEST_LIFETIME);
        let lifetimes = well_known::Lifetimes {
            unsaid: lifetime(config.well_known_lifetime),
            absent: lifetime(config.well_known_retry),
        };
        let (found, delegations) = (Cache::new(REMEMBERED), Cache::new(REMEMBERED));
        Self(Arc::new(Inner { world, lifetimes, found, delegations }))
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

    /// Forgets where `server` was: it was not there.
    pub(crate) fn forget(&self, server: &ServerName) {
        self.0.found.remove(server);
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

    /// What the host's well-known page delegates to, and until when that holds.
    async fn delegation(&self, host: &str) -> Result<(Option<OwnedServerName>, Instant), Unresolvable> {
        let now = self.0.world.instant();
        let remembered = self.0.delegations.get(host);
        if let Some(remembered) = &remembered
            && remembered.until > now
        {
            return Ok((remembered.delegation.clone(), remembered.until));
        }
        let fresh = match well_known::ask(&self.0.world, host, &self.0.lifetimes).await {
            Ok(Delegation { to, lifetime }) => {
                Remembered { delegation: Some(to), until: now + lifetime, failures: 0 }
            }
            // Nothing was learned.
            Err(Missing::Busy) => return Err(Unresolvable::Busy),
            Err(error) => {
                tracing::debug!(host, %error, "no delegation");
                let kept = remembered.as_ref().and_then(|before| before.delegation.clone());
                let kept = kept.filter(|_| matches!(error, Missing::Unknown(_)));
                self.missing(kept, remembered.map_or(0, |before| before.failures) + 1, now)
            }
        };
        self.0.delegations.insert(host.to_owned(), fresh.clone());
        Ok((fresh.delegation, fresh.until))
    }

    /// A delegation that may still be there is kept for a few failures; otherwise there is none.
    fn missing(&self, kept: Option<OwnedServerName>, failures: u32, now: Instant) -> Remembered {
        let absent = self.0.lifetimes.absent;
        let delegation = kept.filter(|_| failures <= 3);
        let wait = match delegation {
            Some(_) => absent / 12,
            None => (absent / 12).saturating_mul(1 << failures.min(8)).min(absent),
        };
        Remembered { delegation, until: now + wait, failures }
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
