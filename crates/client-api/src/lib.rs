//! Client-server HTTP: one file per endpoint; renders sync.
//!
//! A handler translates, calls one domain function, translates back. Folders follow the URLs. [`routes`] and
//! [`media_routes`] are the whole table; `no-auth.txt` beside this crate lists the endpoints that answer without an access token.

mod account;
mod account_validity;
mod admin;
mod api;
mod appservice;
mod config;
mod dehydrated_device;
mod delayed;
mod devices;
mod directory;
mod error;
mod events;
mod initial_sync;
mod keys;
mod livekit;
mod media;
mod media_proxy;
mod profile;
mod push;
mod rates;
mod reporting;
mod requester;
mod room_keys;
mod rooms;
mod search;
mod server;
mod session;
mod sync;
mod thirdparty;
mod to_device;
mod uia;
mod user;
mod user_directory;
mod users;

use chappe_web::Routes;

pub use self::{
    api::{Api, Deps},
    config::{Config, SupportContact, Turn},
    error::Error,
    rates::Rates,
};

/// Every endpoint of the client-server API that is answered, media aside.
pub fn routes() -> Routes<Api> {
    Routes::new()
        .and(server::routes())
        .and(session::routes())
        .and(account::routes())
        .and(account_validity::routes())
        .and(admin::routes())
        .and(devices::routes())
        .and(keys::routes())
        .and(dehydrated_device::routes())
        .and(room_keys::routes())
        .and(to_device::routes())
        .and(user::routes())
        .and(push::routes())
        .and(profile::routes())
        .and(rooms::routes())
        .and(delayed::routes())
        .and(directory::routes())
        .and(sync::routes())
        .and(user_directory::routes())
        .and(users::routes())
        .and(search::routes())
        .and(events::routes())
        .and(initial_sync::routes())
        .and(reporting::routes())
        .and(thirdparty::routes())
        .and(appservice::routes())
        .and(livekit::routes())
}

/// Uploads and downloads, which a listener may serve apart.
pub fn media_routes() -> Routes<Api> {
    media::routes().and(media_proxy::routes())
}
