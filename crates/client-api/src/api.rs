//! What handlers are given: the handles of the domain, each by itself.

use std::sync::Arc;

use axum::extract::FromRef;
use chappe_accounts::{Accounts, RemoteUsers};
use chappe_appservices::Services;
use chappe_calls::Calls;
use chappe_delivery::Delivery;
use chappe_identity::{Identity, IdentityService, Renewals, Sso};
use chappe_media::Media;
use chappe_rooms::Rooms;
use chappe_scanner::Scanner;
use chappe_search::Search;
use chappe_web::RateLimiter;
use chappe_world::{Live, World};

use crate::Config;

/// What [`Api`] is built from.
pub struct Deps {
    /// The outside world.
    pub world: World,
    /// Accounts.
    pub accounts: Accounts,
    /// The identity service, and identity within.
    pub service: IdentityService,
    /// Logging in by identity providers.
    pub sso: Sso,
    /// Rooms.
    pub rooms: Rooms,
    /// What devices have not seen yet.
    pub delivery: Delivery,
    /// Application services.
    pub services: Services,
    /// Media.
    pub media: Media,
    /// Media, scanned before they are given out; none: there is nothing that scans.
    pub scanner: Option<Scanner>,
    /// Access to calls of many people; none: this server gives none.
    pub calls: Option<Calls>,
    /// What was said and who is there.
    pub search: Search,
    /// Users of other servers.
    pub remote: Arc<dyn RemoteUsers>,
    /// The section of the configuration.
    pub config: Config,
}

/// The state of the router: a handle, clones share it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    deps: Deps,
    config: Live<Config>,
    sso: Live<Sso>,
    limiter: RateLimiter,
}

impl Api {
    /// Ties the domain to the router.
    pub fn new(deps: Deps) -> Self {
        let config = Live::new(deps.config.clone());
        let sso = Live::new(deps.sso.clone());
        Self(Arc::new(Inner { deps, config, sso, limiter: RateLimiter::default() }))
    }
}

impl Api {
    /// Goes on with another section and other identity providers.
    pub fn reconfigure(&self, config: Config, sso: Sso) {
        self.0.config.set(config);
        self.0.sso.set(sso);
    }

    /// What is counted here, for others who count the same actions.
    pub fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Api of {}", self.0.deps.accounts.server_name())
    }
}

macro_rules! parts {
    ($($t:ty: $($path:ident).+;)*) => {$(
        impl FromRef<Api> for $t {
            fn from_ref(api: &Api) -> Self {
                api.0.$($path).+.clone()
            }
        }
    )*};
}

parts! {
    World: deps.world;
    Accounts: deps.accounts;
    IdentityService: deps.service;
    Rooms: deps.rooms;
    Delivery: deps.delivery;
    Services: deps.services;
    Media: deps.media;
    Option<Scanner>: deps.scanner;
    Option<Calls>: deps.calls;
    Search: deps.search;
    Arc<dyn RemoteUsers>: deps.remote;
    RateLimiter: limiter;
}

/// The section as it is now: a request goes on with it to its end.
impl FromRef<Api> for Arc<Config> {
    fn from_ref(api: &Api) -> Self {
        api.0.config.get()
    }
}

/// The identity providers as they are now.
impl FromRef<Api> for Sso {
    fn from_ref(api: &Api) -> Self {
        (*api.0.sso.get()).clone()
    }
}

impl FromRef<Api> for Identity {
    fn from_ref(api: &Api) -> Self {
        api.0.deps.service.identity().clone()
    }
}

impl FromRef<Api> for Renewals {
    fn from_ref(api: &Api) -> Self {
        Self::new(FromRef::from_ref(api), FromRef::from_ref(api))
    }
}
