//! What the server is and offers.

mod capabilities;
mod rtc_transports;
mod turn_server;
mod versions;
mod well_known_client;
mod well_known_policy_server;
mod well_known_support;

use chappe_web::{Auth, Routes};
use http::Method;
use ruma::api::client::{
    discovery::{
        discover_homeserver, discover_policy_server, discover_support, get_capabilities,
        get_supported_versions,
    },
    voip::get_turn_server_info,
};

use crate::Api;

/// Where the services for calls are found while MSC4143 is not part of the specification.
const RTC_TRANSPORTS: &str = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports";

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<get_supported_versions::Request, _>(versions::handler)
        .on::<get_capabilities::v3::Request, _>(capabilities::handler)
        .on::<discover_homeserver::Request, _>(well_known_client::handler)
        .on::<discover_policy_server::Request, _>(well_known_policy_server::handler)
        .on::<discover_support::Request, _>(well_known_support::handler)
        .at(&Method::GET, RTC_TRANSPORTS, Auth::Token, rtc_transports::handler)
        .on::<get_turn_server_info::v3::Request, _>(turn_server::handler)
}
