//! `/_synapse/admin/v2`.

mod rooms;
mod users;

use chappe_web::Routes;

use super::Api;

pub(super) use self::users::list;

/// Every endpoint below `/_synapse/admin/v2`.
pub(super) fn routes() -> Routes<Api> {
    Routes::new().and(rooms::routes()).and(users::routes())
}
