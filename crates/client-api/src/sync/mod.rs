//! What is new for a device, and what is never stored: typing and presence.

mod presence;
mod sliding;
mod typing;
mod v3;

use chappe_web::Routes;
use ruma::api::client::{presence as p, sync::sync_events, typing::create_typing_event};

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<sync_events::v3::Request, _>(v3::handler)
        .on::<sync_events::v5::Request, _>(sliding::handler)
        .on::<create_typing_event::v3::Request, _>(typing::handler)
        .on::<p::set_presence::v3::Request, _>(presence::set)
        .on::<p::get_presence::v3::Request, _>(presence::show)
}
