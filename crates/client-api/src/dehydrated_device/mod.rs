//! The device that a user leaves asleep for the next log-in (MSC3814).

mod device;
mod events;

use chappe_web::{Auth, Routes};
use http::Method;

use crate::Api;

/// Where all of this is found while MSC3814 is not part of the specification.
const DEVICE: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

pub(crate) fn routes() -> Routes<Api> {
    let events = format!("{DEVICE}/{{device_id}}/events");
    Routes::new()
        .at(&Method::PUT, DEVICE, Auth::Token, device::put)
        .at(&Method::GET, DEVICE, Auth::Token, device::show)
        .at(&Method::DELETE, DEVICE, Auth::Token, device::delete)
        .at(&Method::GET, &events, Auth::Token, events::show)
        .at(&Method::POST, &events, Auth::Token, events::post)
}
