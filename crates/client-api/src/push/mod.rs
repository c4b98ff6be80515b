//! Push rules and pushers.

mod notifications;
mod pushers;
mod rule;
mod rule_actions;
mod rule_enabled;
mod rules;

use chappe_web::Routes;
use ruma::api::client::push as api;

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<api::get_notifications::v3::Request, _>(notifications::handler)
        .on::<api::get_pushrules_all::v3::Request, _>(rules::all)
        .on_shortened::<api::get_pushrules_all::v3::Request, _>(0, &[], rules::all)
        .on::<api::get_pushrules_global_scope::v3::Request, _>(rules::global)
        .on_shortened::<api::get_pushrules_global_scope::v3::Request, _>(0, &[], rules::global)
        .on::<api::get_pushrule::v3::Request, _>(rule::show)
        .on::<api::set_pushrule::v3::Request, _>(rule::set)
        .on::<api::delete_pushrule::v3::Request, _>(rule::delete)
        .on::<api::get_pushrule_actions::v3::Request, _>(rule_actions::show)
        .on::<api::set_pushrule_actions::v3::Request, _>(rule_actions::set)
        .on::<api::get_pushrule_enabled::v3::Request, _>(rule_enabled::show)
        .on::<api::set_pushrule_enabled::v3::Request, _>(rule_enabled::set)
        .on::<api::get_pushers::v3::Request, _>(pushers::all)
        .on::<api::set_pusher::v3::Request, _>(pushers::set)
}
