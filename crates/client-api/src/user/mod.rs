//! `/user/{userId}/…`: account data, tags, filters.

mod account_data;
mod filter;
mod room_account_data;
mod tags;

use chappe_web::{Auth, Routes};
use http::Method;
use ruma::api::client::{config, filter as filter_api, tag};

use crate::Api;

const DELETE: Method = Method::DELETE;
/// Where deleting account data is found while MSC3391 is not part of the specification.
const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}";

pub(crate) fn routes() -> Routes<Api> {
    let in_room = room_account_data::delete;
    Routes::new()
        .on::<config::set_global_account_data::v3::Request, _>(account_data::set)
        .on::<config::get_global_account_data::v3::Request, _>(account_data::show)
        .on::<config::set_room_account_data::v3::Request, _>(room_account_data::set)
        .on::<config::get_room_account_data::v3::Request, _>(room_account_data::show)
        .at(&DELETE, &format!("{UNSTABLE}/account_data/{{type}}"), Auth::Token, account_data::delete)
        .at(&DELETE, &format!("{UNSTABLE}/rooms/{{room_id}}/account_data/{{type}}"), Auth::Token, in_room)
        .on::<tag::get_tags::v3::Request, _>(tags::all)
        .on::<tag::create_tag::v3::Request, _>(tags::set)
        .on::<tag::delete_tag::v3::Request, _>(tags::delete)
        .on::<filter_api::create_filter::v3::Request, _>(filter::create)
        .on::<filter_api::get_filter::v3::Request, _>(filter::show)
}
