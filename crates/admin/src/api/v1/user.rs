//! `/v1/user/{userId}/…`: what is done to all that somebody said.

mod redact;

use chappe_web::Routes;

use super::Place as _;
use crate::api::Api;

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .post("/_synapse/admin/v1/user/{user_id}/redact", redact::start)
        .get("/_synapse/admin/v1/user/redact_status/{redact_id}", redact::status)
}
