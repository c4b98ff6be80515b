//! `/user/{userId}/…`: account data, tags, filters.

mod account_data;
mod filter;
mod room_account_data;
mod tags;

use chappe_web::Routes;
use ruma::api::client::{config, filter as filter_api, tag};

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<config::set_global_account_data::v3::Request, _>(account_data::set)
        .on::<config::get_global_account_data::v3::Request, _>(account_data::show)
        .on::<config::set_room_account_data::v3::Request, _>(room_account_data::set)
        .on::<config::get_room_account_data::v3::Request, _>(room_account_data::show)
        .on::<tag::get_tags::v3::Request, _>(tags::all)
        .on::<tag::create_tag::v3::Request, _>(tags::set)
        .on::<tag::delete_tag::v3::Request, _>(tags::delete)
        .on::<filter_api::create_filter::v3::Request, _>(filter::create)
        .on::<filter_api::get_filter::v3::Request, _>(filter::show)
}
