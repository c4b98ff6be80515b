//! `/v2/users`: accounts and their devices.

mod delete_devices;
mod devices;
pub(in crate::api) mod list;
mod user;

use chappe_web::Routes;

use crate::api::{Api, v1::Place as _};

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .get("/_synapse/admin/v2/users", list::handler)
        .get("/_synapse/admin/v2/users/{user_id}", user::show)
        .put("/_synapse/admin/v2/users/{user_id}", user::set)
        .post("/_synapse/admin/v2/users/{user_id}/delete_devices", delete_devices::handler)
        .get("/_synapse/admin/v2/users/{user_id}/devices", devices::list)
        .post("/_synapse/admin/v2/users/{user_id}/devices", devices::create)
        .get("/_synapse/admin/v2/users/{user_id}/devices/{device_id}", devices::device::show)
        .put("/_synapse/admin/v2/users/{user_id}/devices/{device_id}", devices::device::rename)
        .delete("/_synapse/admin/v2/users/{user_id}/devices/{device_id}", devices::device::delete)
}
