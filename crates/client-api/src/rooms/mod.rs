//! Rooms: making them, entering and leaving them, what is said in them, what they look like.

mod change;
mod context;
mod create;
mod event;
mod forget;
mod hierarchy;
mod initial_sync;
mod invite;
mod join;
mod joined_members;
mod joined_rooms;
mod knock;
mod leave;
mod members;
mod messages;
mod mutual;
mod read_markers;
mod receipt;
mod redact;
mod relations;
mod send;
mod state;
mod state_event;
mod summary;
mod thread_subscription;
mod thread_subscriptions;
mod threads;
mod timestamp_to_event;
mod upgrade;

use chappe_web::{Auth, Routes};
use http::Method;
use ruma::api::client::{
    context::get_context, knock::knock_room, membership as m, message as msg, peeking::get_current_state,
    read_marker::set_read_marker, receipt::create_receipt, redact::redact_event, relations as rel, room as r,
    space::get_hierarchy, state as s, threads::get_threads,
};
use serde_json::{Map, Value, value::RawValue};

pub(crate) use self::{send::redaction, thread_subscriptions::Changes as SubscriptionChanges};
use crate::{Api, error::Result, events::VERSIONS};

/// Where threads are followed while MSC4306 is not part of the specification, and where they are listed (MSC4308).
const SUBSCRIPTION: &str =
    "/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/{thread_root}/subscription";
const SUBSCRIPTIONS: &str = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions";

pub(crate) fn routes() -> Routes<Api> {
    membership().and(history()).and(around())
}

fn membership() -> Routes<Api> {
    Routes::new()
        .on::<r::create_room::v3::Request, _>(create::handler)
        .on::<m::join_room_by_id::v3::Request, _>(join::by_id)
        .on::<m::join_room_by_id_or_alias::v3::Request, _>(join::by_id_or_alias)
        .on::<knock_room::v3::Request, _>(knock::handler)
        .on::<m::invite_user::v3::Request, _>(invite::handler)
        .on::<m::leave_room::v3::Request, _>(leave::handler)
        .on::<m::kick_user::v3::Request, _>(change::kick)
        .on::<m::ban_user::v3::Request, _>(change::ban)
        .on::<m::unban_user::v3::Request, _>(change::unban)
        .on::<m::forget_room::v3::Request, _>(forget::handler)
        .on::<m::joined_rooms::v3::Request, _>(joined_rooms::handler)
        .on::<m::get_mutual_rooms::v1::Request, _>(mutual::handler)
        .on::<m::joined_members::v3::Request, _>(joined_members::handler)
        .on::<m::get_member_events::v3::Request, _>(members::handler)
        .on::<r::upgrade_room::v3::Request, _>(upgrade::handler)
}

/// What bots still send as they did before there were transactions.
fn once() -> Routes<Api> {
    let mut routes = Routes::new();
    for version in VERSIONS {
        let room = format!("/_matrix/client/{version}/rooms/{{room_id}}");
        routes = routes
            .at(&Method::POST, &format!("{room}/send/{{event_type}}"), Auth::Token, send::once)
            .at(&Method::POST, &format!("{room}/redact/{{event_id}}"), Auth::Token, redact::once);
    }
    routes
}

fn history() -> Routes<Api> {
    once()
        .on::<msg::send_message_event::v3::Request, _>(send::handler)
        .on::<redact_event::v3::Request, _>(redact::handler)
        .on::<msg::get_message_events::v3::Request, _>(messages::handler)
        .on::<get_context::v3::Request, _>(context::handler)
        .on::<get_current_state::v3::Request, _>(initial_sync::handler)
        .on::<r::get_room_event::v3::Request, _>(event::handler)
        .on::<r::get_event_by_timestamp::v1::Request, _>(timestamp_to_event::handler)
        .on::<s::get_state_events::v3::Request, _>(state::handler)
        .on::<s::get_state_event_for_key::v3::Request, _>(state_event::show)
        .on_shortened::<s::get_state_event_for_key::v3::Request, _>(1, &[""], state_event::show)
        .on::<s::send_state_event::v3::Request, _>(state_event::set)
        .on_shortened::<s::send_state_event::v3::Request, _>(1, &[""], state_event::set)
}

fn around() -> Routes<Api> {
    Routes::new()
        .on::<rel::get_relating_events::v1::Request, _>(relations::all)
        .on::<rel::get_relating_events_with_rel_type::v1::Request, _>(relations::of_kind)
        .on::<rel::get_relating_events_with_rel_type_and_event_type::v1::Request, _>(relations::of_type)
        .on::<get_threads::v1::Request, _>(threads::handler)
        .at(&Method::GET, SUBSCRIPTION, Auth::Token, thread_subscription::show)
        .at(&Method::PUT, SUBSCRIPTION, Auth::Token, thread_subscription::set)
        .at(&Method::DELETE, SUBSCRIPTION, Auth::Token, thread_subscription::remove)
        .at(&Method::GET, SUBSCRIPTIONS, Auth::Token, thread_subscriptions::handler)
        .on::<get_hierarchy::v1::Request, _>(hierarchy::handler)
        .on::<r::get_summary::v1::Request, _>(summary::handler)
        .on::<create_receipt::v3::Request, _>(receipt::handler)
        .on::<set_read_marker::v3::Request, _>(read_markers::handler)
}

/// The content of an event as a client gave it: a JSON object.
fn content(json: &RawValue) -> Result<Map<String, Value>> {
    Ok(chappe_rooms::Draft::content_from(json.get())?)
}
