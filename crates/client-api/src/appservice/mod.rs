//! What application services ask of the server, beyond what clients do.

mod directory;
mod ping;

use chappe_web::Routes;
use ruma::api::client::appservice::{request_ping, set_room_visibility};

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<request_ping::v1::Request, _>(ping::handler)
        .on::<set_room_visibility::v3::Request, _>(directory::handler)
}
