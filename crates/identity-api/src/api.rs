//! What handlers are given.

use std::sync::Arc;

use axum::extract::FromRef;
use chappe_federation::Network;
use chappe_identity::{Identity, IdentityService};
use chappe_web::RateLimiter;
use chappe_world::Live;

use crate::Config;

/// What [`Api`] is built from.
#[derive(Debug)]
pub struct Deps {
    /// The identity service.
    pub service: IdentityService,
    /// Other homeservers: their keys, for the requests that they sign.
    pub network: Network,
    /// The section of the configuration.
    pub config: Config,
}

/// The state of the router: a handle, clones share it.
#[derive(Clone, Debug)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    deps: Deps,
    config: Live<Config>,
    limiter: RateLimiter,
}

impl Api {
    /// Ties the identity service to the router.
    pub fn new(deps: Deps) -> Self {
        let config = Live::new(deps.config.clone());
        Self(Arc::new(Inner { deps, config, limiter: RateLimiter::default() }))
    }

    /// Goes on with another section.
    pub fn reconfigure(&self, config: Config) {
        self.0.config.set(config);
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.0.config.get()
    }

    pub(crate) fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }
}

impl FromRef<Api> for IdentityService {
    fn from_ref(api: &Api) -> Self {
        api.0.deps.service.clone()
    }
}

impl FromRef<Api> for Identity {
    fn from_ref(api: &Api) -> Self {
        api.0.deps.service.identity().clone()
    }
}

impl FromRef<Api> for Network {
    fn from_ref(api: &Api) -> Self {
        api.0.deps.network.clone()
    }
}
