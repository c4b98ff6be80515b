//! Admin API and command-line verbs: domains, users, rooms, servers.
//!
//! A [`Verb`] is run by [`Admin::run`]: inside the server for those that come over the admin socket, inside the
//! command-line tool when the server is stopped and the database is free.

mod api;
mod backup;
mod config;
mod error;
mod import;
mod jobs;
mod network_file;
mod pictures;
mod register;
mod run;
pub mod signing_key;
mod statistics;
mod verb;

pub use self::{
    api::{Api, router, routes},
    backup::{Note, Places, Restored, restore},
    config::Config,
    error::Error,
    jobs::Jobs,
    network_file::ListFile,
    pictures::pictures,
    register::{SharedSecret, register_routes},
    run::{Admin, Answer, Changes, Deps, RUN_PATH, Reload, Running, ServersChanged, socket_routes},
    statistics::{Grouping, Statistics, StatisticsConfig, StatisticsDeps},
    verb::{
        Audit as AuditVerb, Configuration, Destinations, Domains, Jobs as JobsVerb, MapVerb, Media, Network,
        Notices, Reports, Rooms, Servers, SigningKey as SigningKeyVerb, Stats, Tokens, Users, Verb,
    },
};
