//! `/_chappe/admin/v1`: what Synapse's admin API has no endpoints for.

mod announcements;
mod audit;
mod import;
mod statistics;
mod users;

use chappe_web::Routes;

use super::Api;

/// Every endpoint below `/_chappe/admin/v1`.
pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .and(announcements::routes())
        .and(audit::routes())
        .and(import::routes())
        .and(statistics::routes())
        .and(users::routes())
}
