//! The user's devices.

mod delete;
mod list;
mod one;

use chappe_web::Routes;
use ruma::api::client::device as api;

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<api::get_devices::v3::Request, _>(list::handler)
        .on::<api::get_device::v3::Request, _>(one::show)
        .on::<api::update_device::v3::Request, _>(one::rename)
        .on::<api::delete_device::v3::Request, _>(delete::one)
        .on::<api::delete_devices::v3::Request, _>(delete::many)
}
