//! `/_synapse/admin`: administration over HTTP in the form that Synapse documents, for the web consoles and bots that
//! call it; `/_chappe/admin` for what Synapse has no form of. One endpoint, one file; folders follow the URLs.
//!
//! Every route asks for the access token of a server administrator before anything else happens: [`admit`] stands in
//! front of all of them. `docs/admin-api.md` lists what there is.

mod admit;
pub(crate) mod body;
mod chappe;
mod error;
mod page;
mod v1;
mod v2;
mod v3;

use axum::{Router, middleware::from_fn_with_state};
use chappe_accounts::{Accounts, User};
use chappe_federation::Federation;
use chappe_identity::IdentityService;
use chappe_media::Media;
use chappe_rooms::Rooms;
use chappe_store::Store;
use chappe_web::Routes;
use chappe_world::World;
use ruma::UserId;

use crate::{Jobs, Statistics};

pub(crate) use self::{
    admit::{Administrator, Paths},
    body::Body,
    error::{Error, Result},
    page::{Dir, Page},
};

/// What the endpoints work on: handles, clones share them.
#[derive(Clone)]
pub struct Api {
    /// The world.
    pub world: World,
    /// The store.
    pub store: Store,
    /// Accounts.
    pub accounts: Accounts,
    /// The identity service.
    pub service: IdentityService,
    /// Rooms.
    pub rooms: Rooms,
    /// Other servers.
    pub federation: Federation,
    /// Files.
    pub media: Media,
    /// Long work.
    pub jobs: Jobs,
    /// What is counted.
    pub statistics: Statistics,
}

/// Every endpoint; `register` with its shared secret is apart.
pub fn routes() -> Routes<Api> {
    Routes::new().and(v1::routes()).and(v2::routes()).and(v3::routes()).and(chappe::routes())
}

/// The router: the routes behind the question who asks.
pub fn router(api: Api) -> Router {
    let routes = routes();
    let admit = from_fn_with_state((api.clone(), Paths::of(&routes)), admit::admit);
    routes.into_router().route_layer(admit).with_state(api)
}

impl Api {
    /// An account of this server: 400 for users of other servers, 404 where there is none.
    pub(crate) async fn account(&self, user: &UserId) -> Result<User> {
        if !self.accounts.is_local(user) {
            let said = "This is only possible for users of this server";
            return Err(chappe_web::Error::new(http::StatusCode::BAD_REQUEST, "M_UNKNOWN", said).into());
        }
        let found = self.accounts.user(user).await?;
        Ok(found.ok_or_else(|| chappe_web::Error::not_found("User not found"))?)
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "admin API of {}", self.accounts.server_name())
    }
}
