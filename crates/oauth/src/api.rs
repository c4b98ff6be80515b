//! The handle: what the authorization server stands on.

use std::sync::Arc;

use chappe_accounts::Accounts;
use chappe_identity::{Identity, IdentityService, Registration, Sso};
use chappe_store::Store;
use chappe_web::{Rate, RateLimiter};
use chappe_world::{Live, World};
use ruma::OwnedUserId;

use crate::{Config, device_codes::DeviceCodes};

/// Below this path is everything but the discovery.
pub(crate) const BASE: &str = "/_matrix/client/unstable/chappe/oauth";

/// The path of the page on which people manage their account.
pub const ACCOUNT_PATH: &str = "/_matrix/client/unstable/chappe/oauth/account";

/// How often an operation is tried again when another writer was first.
pub(crate) const ATTEMPTS: usize = 20;

/// What [`OAuth`] is built from.
pub struct Deps {
    /// The store.
    pub store: Store,
    /// The outside world.
    pub world: World,
    /// Accounts.
    pub accounts: Accounts,
    /// Addresses, and how this server is known from outside.
    pub service: IdentityService,
    /// Identity providers by which people log in to the pages.
    pub sso: Sso,
    /// Who may sign up, here as over the client API.
    pub registration: Registration,
    /// Counts log-ins together with the client API.
    pub log_ins: LogInCounts,
    /// Makes a closed account leave its rooms.
    pub leave_rooms: Arc<dyn Fn(OwnedUserId) + Send + Sync>,
    /// The section of the configuration.
    pub config: Config,
}

/// How log-ins and new accounts are counted: as those of the client API, in the same buckets.
#[derive(Clone, Debug)]
pub struct LogInCounts {
    /// The buckets.
    pub limiter: RateLimiter,
    /// Log-ins from one address.
    pub by_ip: Rate,
    /// Log-ins to one account.
    pub by_account: Rate,
    /// Registrations from one address.
    pub sign_ups: Rate,
}

/// This server as an authorization server: a handle, clones share it. The state of its router.
#[derive(Clone)]
pub struct OAuth(Arc<Inner>);

struct Inner {
    deps: Deps,
    sso: Live<Sso>,
    config: Live<Config>,
    registration: Live<Registration>,
    log_ins: Live<LogInCounts>,
    devices: DeviceCodes,
    /// Where clients and people reach this server, without a slash at the end.
    base: String,
    secure: bool,
}

impl OAuth {
    /// Ties everything together.
    pub fn new(deps: Deps) -> Self {
        let base = deps.service.identity().site().public_baseurl.trim_end_matches('/').to_owned();
        let secure = !is_loopback(&base);
        let inner = Inner {
            sso: Live::new(deps.sso.clone()),
            config: Live::new(deps.config.clone()),
            registration: Live::new(deps.registration.clone()),
            log_ins: Live::new(deps.log_ins.clone()),
            deps,
            devices: DeviceCodes::default(),
            base,
            secure,
        };
        Self(Arc::new(inner))
    }

    /// Goes on with another section, other identity providers, and what the section of the client API says now.
    pub fn reconfigure(&self, config: Config, sso: Sso, registration: Registration, log_ins: LogInCounts) {
        self.0.config.set(config);
        self.0.sso.set(sso);
        self.0.registration.set(registration);
        self.0.log_ins.set(log_ins);
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.deps.store
    }

    pub(crate) fn world(&self) -> &World {
        &self.0.deps.world
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.0.deps.accounts
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.service().identity()
    }

    pub(crate) fn service(&self) -> &IdentityService {
        &self.0.deps.service
    }

    pub(crate) fn registration(&self) -> Arc<Registration> {
        self.0.registration.get()
    }

    /// The identity providers as they are now.
    pub(crate) fn sso(&self) -> Sso {
        (*self.0.sso.get()).clone()
    }

    pub(crate) fn log_ins(&self) -> Arc<LogInCounts> {
        self.0.log_ins.get()
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.0.config.get()
    }

    pub(crate) fn devices(&self) -> &DeviceCodes {
        &self.0.devices
    }

    pub(crate) fn leave_rooms(&self, user: OwnedUserId) {
        (self.0.deps.leave_rooms)(user);
    }

    /// The address of an endpoint below [`BASE`].
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{BASE}{path}", self.0.base)
    }

    /// Who issues tokens here, as clients compare it (RFC 8414, RFC 9207).
    pub(crate) fn issuer(&self) -> String {
        format!("{}/", self.0.base)
    }

    /// Whether cookies are for encrypted connections alone: all are, but those of a server on the same machine.
    pub(crate) fn is_secure(&self) -> bool {
        self.0.secure
    }
}

impl std::fmt::Debug for OAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OAuth of {}", self.0.base)
    }
}

/// Whether a base URL is plain HTTP to the same machine.
fn is_loopback(base: &str) -> bool {
    let Ok(url) = url::Url::parse(base) else { return false };
    let host = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && host
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn cookies_are_sent_in_clear_to_the_same_machine_alone() {
        for same in ["http://localhost:8008", "http://127.0.0.1:8008", "http://[::1]"] {
            assert!(is_loopback(same), "{same}");
        }
        for other in ["https://localhost", "http://a.fr", "http://localhost.a.fr", "http://10.0.0.1", ""] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
