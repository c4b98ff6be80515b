//! The account: making it, proving addresses, changing it, closing it.

mod available;
mod confirm_email;
mod deactivate;
mod openid;
mod password;
mod password_policy;
mod register;
mod request_msisdn;
mod request_token;
mod threepid_add;
mod threepid_bind;
mod threepid_delete;
mod threepid_post;
mod threepid_unbind;
mod threepids;
mod token_validity;
mod whoami;

use chappe_web::{Auth, Routes};
use http::Method;
use ruma::api::client::account as api;

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    whole().and(phones())
}

/// What would need text messages.
fn phones() -> Routes<Api> {
    Routes::new()
        .on::<api::request_registration_token_via_msisdn::v3::Request, _>(request_msisdn::registration)
        .on::<api::request_password_change_token_via_msisdn::v3::Request, _>(request_msisdn::password)
        .on::<api::request_3pid_management_token_via_msisdn::v3::Request, _>(request_msisdn::threepid)
}

fn whole() -> Routes<Api> {
    Routes::new()
        .on::<api::register::v3::Request, _>(register::handler)
        .on::<api::get_username_availability::v3::Request, _>(available::handler)
        .on::<api::check_registration_token_validity::v1::Request, _>(token_validity::handler)
        .on::<api::request_registration_token_via_email::v3::Request, _>(request_token::registration)
        .on::<api::request_password_change_token_via_email::v3::Request, _>(request_token::password)
        .on::<api::request_3pid_management_token_via_email::v3::Request, _>(request_token::threepid)
        .on::<api::whoami::v3::Request, _>(whoami::handler)
        .on::<api::change_password::v3::Request, _>(password::handler)
        .on::<api::deactivate::v3::Request, _>(deactivate::handler)
        .on::<api::get_3pids::v3::Request, _>(threepids::handler)
        .on::<api::add_3pid::v3::Request, _>(threepid_add::handler)
        .on::<api::delete_3pid::v3::Request, _>(threepid_delete::handler)
        .on::<api::bind_3pid::v3::Request, _>(threepid_bind::handler)
        .on::<api::unbind_3pid::v3::Request, _>(threepid_unbind::handler)
        .on::<api::request_openid_token::v3::Request, _>(openid::handler)
        .at(&Method::POST, "/_matrix/client/v3/account/3pid", Auth::Token, threepid_post::handler)
        .at(&Method::POST, "/_matrix/client/r0/account/3pid", Auth::Token, threepid_post::handler)
        .at(&Method::GET, "/_matrix/client/v3/password_policy", Auth::None, password_policy::handler)
        .at(&Method::GET, "/_matrix/client/r0/password_policy", Auth::None, password_policy::handler)
        .at(&Method::GET, chappe_identity::CONFIRM_PATH, Auth::None, confirm_email::show)
        .at(&Method::POST, chappe_identity::CONFIRM_PATH, Auth::None, confirm_email::confirm)
}
