//! What the server is and offers.

mod capabilities;
mod turn_server;
mod versions;
mod well_known_client;
mod well_known_support;

use chappe_web::Routes;
use ruma::api::client::{
    discovery::{discover_homeserver, discover_support, get_capabilities, get_supported_versions},
    voip::get_turn_server_info,
};

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<get_supported_versions::Request, _>(versions::handler)
        .on::<get_capabilities::v3::Request, _>(capabilities::handler)
        .on::<discover_homeserver::Request, _>(well_known_client::handler)
        .on::<discover_support::Request, _>(well_known_support::handler)
        .on::<get_turn_server_info::v3::Request, _>(turn_server::handler)
}
