//! Client-server HTTP: one file per endpoint; renders sync.
//!
//! A handler translates, calls one domain function, translates back. Folders follow the URLs. [`routes`] is the whole
//! table; `no-auth.txt` beside this crate lists the endpoints that answer without an access token.

mod account;
mod api;
mod config;
mod devices;
mod directory;
mod error;
mod keys;
mod profile;
mod push;
mod rates;
mod requester;
mod room_keys;
mod rooms;
mod server;
mod session;
mod sync;
mod to_device;
mod uia;
mod user;

use chappe_web::Routes;

pub use self::{
    api::{Api, Deps},
    config::{Config, Registration, SupportContact, Turn},
    error::Error,
    rates::Rates,
};

/// Every endpoint of the client-server API that is answered.
pub fn routes() -> Routes<Api> {
    Routes::new()
        .and(server::routes())
        .and(session::routes())
        .and(account::routes())
        .and(devices::routes())
        .and(keys::routes())
        .and(room_keys::routes())
        .and(to_device::routes())
        .and(user::routes())
        .and(push::routes())
        .and(profile::routes())
        .and(rooms::routes())
        .and(sync::routes())
}
