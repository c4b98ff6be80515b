//! What a house answers on its listeners.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Router, middleware::from_fn};
use chappe_federation::MediaState;

use super::House;
use crate::{config::Api, observe};

impl House {
    /// What answers on a listener that serves `apis`.
    pub fn router(&self, apis: &BTreeSet<Api>) -> Router {
        let mut router = Router::new();
        for api in apis {
            router = router.merge(self.routes(*api));
        }
        chappe_web::finish(router, Arc::clone(&self.settings)).layer(from_fn(observe::count))
    }

    fn routes(&self, api: Api) -> Router {
        match api {
            Api::Client => self.client_routes(),
            Api::Federation => self.federation_routes(),
            Api::Media => chappe_client_api::media_routes().into_router().with_state(self.client.clone()),
            Api::Identity => {
                chappe_identity_api::routes().into_router().with_state(self.identity_api.clone())
            }
            Api::IdentityInternal => {
                chappe_identity_api::internal_routes().into_router().with_state(self.identity_api.clone())
            }
            Api::Admin => self.admin_routes(),
            Api::Metrics => observe::metrics_routes(observe::Gauges {
                handle: self.metrics.clone(),
                store: self.store.clone(),
                delivery: self.delivery.clone(),
                rooms: self.rooms.clone(),
                media: self.media.clone(),
                list: self.federation.list().cloned(),
            }),
            Api::Health => observe::health_routes(self.store.clone()),
        }
    }

    fn client_routes(&self) -> Router {
        let router = chappe_client_api::routes().into_router().with_state(self.client.clone());
        let Some(oauth) = &self.oauth else { return router };
        router.merge(chappe_oauth::routes().into_router().with_state(oauth.clone()))
    }

    fn federation_routes(&self) -> Router {
        let state = MediaState { federation: self.federation.clone(), media: self.media.clone() };
        let media = chappe_federation::media_routes().into_router().with_state(state);
        let identity = chappe_identity_api::federation_routes().into_router();
        let identity = identity.with_state(self.identity_api.clone());
        chappe_federation::routes()
            .into_router()
            .with_state(self.federation.clone())
            .merge(media)
            .merge(identity)
    }

    fn admin_routes(&self) -> Router {
        let router = chappe_admin::router(chappe_admin::Api {
            world: self.world.clone(),
            store: self.store.clone(),
            accounts: self.accounts.clone(),
            service: self.service.clone(),
            rooms: self.rooms.clone(),
            federation: self.federation.clone(),
            media: self.media.clone(),
            jobs: self.jobs.clone(),
            statistics: self.statistics.clone(),
        });
        let Some(secret) = &self.secret else { return router };
        router.merge(chappe_admin::register_routes(self.accounts.clone(), self.world.clone(), secret))
    }
}
