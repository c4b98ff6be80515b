//! `/v1/users/{userId}/…`, and finding users.

mod accountdata;
mod admin;
mod find;
mod joined_rooms;
mod login;
mod memberships;
mod override_ratelimit;
mod pushers;

use chappe_web::Routes;

use super::Place as _;
use crate::api::Api;

pub(in crate::api) use self::find::canonical;

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .get("/_synapse/admin/v1/users/{user_id}/accountdata", accountdata::handler)
        .get("/_synapse/admin/v1/users/{user_id}/admin", admin::show)
        .put("/_synapse/admin/v1/users/{user_id}/admin", admin::set)
        .get("/_synapse/admin/v1/users/{user_id}/joined_rooms", joined_rooms::handler)
        .post("/_synapse/admin/v1/users/{user_id}/login", login::handler)
        .get("/_synapse/admin/v1/users/{user_id}/memberships", memberships::handler)
        .get("/_synapse/admin/v1/users/{user_id}/override_ratelimit", override_ratelimit::show)
        .post("/_synapse/admin/v1/users/{user_id}/override_ratelimit", override_ratelimit::set)
        .delete("/_synapse/admin/v1/users/{user_id}/override_ratelimit", override_ratelimit::remove)
        .get("/_synapse/admin/v1/users/{user_id}/pushers", pushers::handler)
        .get("/_synapse/admin/v1/threepid/{medium}/users/{address}", find::by_threepid)
        .get("/_synapse/admin/v1/auth_providers/{provider}/users/{external_id}", find::by_external_id)
}
