//! What other servers may ask: one file per endpoint, folders as in the URL.

mod federation;
mod key;
mod network_list;
mod policy;
mod well_known;

use axum::http::Method;
use chappe_web::{Auth, Routes};
use ruma::api::federation as api;

pub(crate) use self::federation::v1::threepid::onbind::hand_all_on;
use self::{
    federation::{unstable, v1, v2},
    key::v2 as key_v2,
};
use crate::{
    Federation,
    directories::{INFOS_PATH, PEOPLE_PATH},
    network_list::LIST_PATH,
};

/// Bytes of a transaction, and of the other requests that carry whole events.
const LARGE: usize = 16 << 20;

/// Where MSC4258 itself says people are asked for.
const OLD_PEOPLE_PATH: &str = "/_matrix/federation/unstable/fr.tchap/user_directory/search";

/// Every endpoint for other servers; the state is the [`Federation`].
pub fn routes() -> Routes<Federation> {
    keys().and(transactions()).and(memberships()).and(reads()).and(users())
}

fn keys() -> Routes<Federation> {
    let server = "/_matrix/key/v2/server";
    Routes::new()
        .at(&Method::GET, server, Auth::None, key_v2::server::handler)
        .at(&Method::GET, &format!("{server}/{{key_id}}"), Auth::None, key_v2::server::handler)
        .on::<api::discovery::get_remote_server_keys::v2::Request, _>(key_v2::query::single)
        .on::<api::discovery::get_remote_server_keys_batch::v2::Request, _>(key_v2::query::batch)
        .on::<api::discovery::get_server_version::v1::Request, _>(v1::version::handler)
        .at(&Method::GET, "/.well-known/matrix/server", Auth::None, well_known::handler)
        .at(&Method::GET, LIST_PATH, Auth::None, network_list::handler)
}

fn transactions() -> Routes<Federation> {
    Routes::new()
        .on_limited::<api::transactions::send_transaction_message::v1::Request, _>(LARGE, v1::send::handler)
}

fn memberships() -> Routes<Federation> {
    use api::{membership as m, thirdparty as third_party};
    let v1_path = |name: &str| format!("/_matrix/federation/v1/{name}/{{room_id}}/{{event_id}}");
    Routes::new()
        .on::<m::prepare_join_event::v1::Request, _>(v1::make_join::handler)
        .on::<m::prepare_leave_event::v1::Request, _>(v1::make_leave::handler)
        .on::<m::prepare_knock_event::v1::Request, _>(v1::make_knock::handler)
        .on::<m::create_join_event::v2::Request, _>(v2::send_join::handler)
        .on::<m::create_leave_event::v2::Request, _>(v2::send_leave::handler)
        .on::<m::create_knock_event::v1::Request, _>(v1::send_knock::handler)
        .on_limited::<m::create_invite::v2::Request, _>(LARGE, v2::invite::handler)
        .at(&Method::PUT, &v1_path("send_join"), Auth::None, v1::send_join::handler)
        .at(&Method::PUT, &v1_path("invite"), Auth::None, v1::invite::handler)
        .on::<api::policy::sign_event::v1::Request, _>(policy::v1::sign::handler)
        .on::<third_party::exchange_invite::v1::Request, _>(v1::exchange_third_party_invite::handler)
        .on::<third_party::bind_callback::v1::Request, _>(v1::threepid::onbind::handler)
        .at(&Method::POST, "/_matrix/federation/v1/3pid/onbind", Auth::None, v1::threepid::onbind::posted)
        .at(&Method::PUT, &v1_path("send_leave"), Auth::None, v1::send_leave::handler)
}

fn reads() -> Routes<Federation> {
    Routes::new()
        .on::<api::backfill::get_backfill::v1::Request, _>(v1::backfill::handler)
        .on::<api::event::get_missing_events::v1::Request, _>(v1::get_missing_events::handler)
        .on::<api::event::get_room_state::v1::Request, _>(v1::state::handler)
        .on::<api::event::get_room_state_ids::v1::Request, _>(v1::state_ids::handler)
        .on::<api::event::get_event::v1::Request, _>(v1::event::handler)
        .on::<api::authorization::get_event_authorization::v1::Request, _>(v1::event_auth::handler)
        .on::<api::event::get_event_by_timestamp::v1::Request, _>(v1::timestamp_to_event::handler)
        .on::<api::query::get_room_information::v1::Request, _>(v1::query::directory::handler)
        .on::<api::query::get_custom_information::v1::Request, _>(v1::query::other::handler)
        .on::<api::space::get_hierarchy::v1::Request, _>(v1::hierarchy::handler)
        .on::<api::directory::get_public_rooms::v1::Request, _>(v1::public_rooms::all)
        .on::<api::directory::get_public_rooms_filtered::v1::Request, _>(v1::public_rooms::filtered)
}

fn users() -> Routes<Federation> {
    Routes::new()
        .on::<api::query::get_profile_information::v1::Request, _>(v1::query::profile::handler)
        .on::<api::device::get_devices::v1::Request, _>(v1::user::devices::handler)
        .on::<api::keys::get_keys::v1::Request, _>(v1::user::keys::query::handler)
        .on::<api::keys::claim_keys::v1::Request, _>(v1::user::keys::claim::handler)
        .on::<api::openid::get_openid_userinfo::v1::Request, _>(v1::openid::userinfo::handler)
        .at(&Method::POST, PEOPLE_PATH, Auth::None, unstable::user_directory::handler)
        .at(&Method::POST, OLD_PEOPLE_PATH, Auth::None, unstable::user_directory::handler)
        .at(&Method::POST, INFOS_PATH, Auth::None, unstable::users_info::handler)
}
