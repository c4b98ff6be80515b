//! `/v1/…/{userId}`: what is done to one account, at paths of before there was `/users`.

mod deactivate;
mod reset_password;
mod suspend;
mod username_available;
mod validity;
mod whois;

use chappe_web::Routes;

use super::Place as _;
use crate::api::Api;

pub(in crate::api) use self::reset_password::others;

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .post("/_synapse/admin/v1/deactivate/{user_id}", deactivate::handler)
        .post("/_synapse/admin/v1/reset_password/{user_id}", reset_password::handler)
        .put("/_synapse/admin/v1/suspend/{user_id}", suspend::handler)
        .get("/_synapse/admin/v1/username_available", username_available::handler)
        .post("/_synapse/admin/v1/account_validity/validity", validity::handler)
        .get("/_synapse/admin/v1/whois/{user_id}", whois::handler)
}
