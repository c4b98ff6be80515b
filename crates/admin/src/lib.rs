//! Admin API and command-line verbs: domains, users, rooms, servers.
//!
//! A [`Verb`] is run by [`Admin::run`]: inside the server for those that come over the admin socket, inside the
//! command-line tool when the server is stopped and the database is free.

mod backup;
mod config;
mod error;
mod register;
mod run;
mod verb;

pub use self::{
    backup::{Note, Places, restore},
    config::Config,
    error::Error,
    register::{SharedSecret, register_routes},
    run::{Admin, Answer, Deps, RUN_PATH, Running, ServersChanged, socket_routes},
    verb::{Destinations, Domains, MapVerb, Rooms, Servers, Tokens, Users, Verb},
};
