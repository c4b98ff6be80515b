//! Profiles: names, pictures and custom fields.

mod field;
mod whole;

use chappe_web::Routes;
use ruma::api::client::profile as api;

pub(crate) use self::field::may_be_renamed;
use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<api::get_profile::v3::Request, _>(whole::handler)
        .on::<api::get_profile_field::v3::Request, _>(field::show)
        .on::<api::set_profile_field::v3::Request, _>(field::set)
        .on::<api::delete_profile_field::v3::Request, _>(field::delete)
}
