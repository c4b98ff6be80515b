//! Admin API and command-line verbs: domains, users, rooms, servers.

mod config;

pub use self::config::Config;
