//! Finding people.

mod search;

use chappe_web::Routes;
use ruma::api::client::user_directory::search_users;

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new().on::<search_users::v3::Request, _>(search::handler)
}
