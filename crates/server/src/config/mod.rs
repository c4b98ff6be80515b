//! The configuration: each crate owns its section, the binary composes them.

mod listeners;
mod live;
mod load;
mod mistake;
mod places;
#[cfg(test)]
mod tests;
mod valid;
mod written;

use std::path::PathBuf;

use chappe_identity::MailConfig;
use ruma::OwnedServerName;
use serde::Deserialize;

pub use self::{
    listeners::{Api, Listener, TlsFiles},
    load::{load, parse},
    mistake::{Error, Mistake},
    written::Written,
};

/// The commented configuration that `chappe config example` prints; a test keeps it right.
pub const EXAMPLE: &str = include_str!("../../../../deploy/chappe.toml");

/// The configuration of `--dev`.
pub const DEVELOPMENT: &str = include_str!("dev.toml");

/// Everything an operator can set. A file, and the environment above it: `CHAPPE__ROOMS__DEFAULT_VERSION=10`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name behind the colon of user ids. It can never be changed.
    pub server_name: OwnedServerName,
    /// Where everything is kept: database, media, signing key, admin socket.
    pub data_dir: PathBuf,
    /// Where clients reach the server, e.g. `https://matrix.example.gouv.fr`.
    pub public_baseurl: String,
    /// Addresses and ports to listen on.
    pub listeners: Vec<Listener>,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
    /// Starting and stopping.
    #[serde(default)]
    pub process: ProcessConfig,
    /// Limits of requests, and proxies.
    #[serde(default)]
    pub http: chappe_web::Settings,
    /// Connections to other machines.
    #[serde(default)]
    pub outbound: chappe_world::Outbound,
    /// Who may sign up and how addresses are validated.
    #[serde(default)]
    pub identity: chappe_identity::Config,
    /// Limits of the identity service's HTTP.
    #[serde(default)]
    pub identity_api: chappe_identity_api::Config,
    /// How mail goes out; absent: no mail.
    #[serde(default)]
    pub mail: Option<MailConfig>,
    /// Logging in by identity providers.
    #[serde(default)]
    pub sso: chappe_identity::SsoConfig,
    /// Passwords, tokens and what one account may keep.
    #[serde(default)]
    pub accounts: chappe_accounts::AccountsConfig,
    /// Logging in with this server's own pages.
    #[serde(default)]
    pub oauth: chappe_oauth::Config,
    /// What clients may do.
    #[serde(default)]
    pub client: chappe_client_api::Config,
    /// Rooms.
    #[serde(default)]
    pub rooms: chappe_rooms::Config,
    /// What devices are told.
    #[serde(default)]
    pub delivery: chappe_delivery::Config,
    /// Uploads and thumbnails.
    #[serde(default)]
    pub media: chappe_media::Config,
    /// Scanning media before they are given out.
    #[serde(default)]
    pub scanner: chappe_scanner::Config,
    /// Access to a LiveKit server for calls of many people; absent: this server gives none.
    #[serde(default)]
    pub livekit: Option<chappe_calls::Config>,
    /// Finding what was said and who is there.
    #[serde(default)]
    pub search: chappe_search::Config,
    /// Other servers.
    #[serde(default)]
    pub federation: chappe_federation::Config,
    /// Application services: bridges, bots.
    #[serde(default)]
    pub appservices: chappe_appservices::Config,
    /// Administration over HTTP.
    #[serde(default)]
    pub admin: chappe_admin::Config,
    /// What all this was read from.
    #[serde(skip)]
    pub written: Written,
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// What is logged: `info`, or a list such as `info,chappe_rooms=debug`.
    pub level: String,
    /// How.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info,ruma_state_res=warn".to_owned(), format: LogFormat::Pretty }
    }
}

/// How log lines look. They go to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// `[process]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// How long requests may take to end when the server stops, in seconds.
    pub shutdown_seconds: u64,
    /// Connections open at a time, over all listeners.
    pub max_connections: usize,
    /// Connections open at a time from one address (of IPv6: one network of 64 bits); 0: no limit. Those of
    /// `http.trusted_proxies` are not counted.
    pub max_connections_per_address: usize,
    /// How long a client may take to send the head of a request, in seconds.
    pub header_timeout_seconds: u64,
    /// Memory for the database's cache of blocks, in MiB.
    pub database_cache_mib: usize,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            shutdown_seconds: 20,
            max_connections: 50_000,
            max_connections_per_address: 10_000,
            header_timeout_seconds: 30,
            database_cache_mib: 256,
        }
    }
}

impl Config {
    /// The file with the key that signs events.
    pub fn signing_key_file(&self) -> PathBuf {
        self.data_dir.join("signing.key")
    }

    /// The socket of the `admin` verbs.
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// The folder of uploads and thumbnails.
    pub fn media_dir(&self) -> PathBuf {
        self.data_dir.join("media")
    }

    /// The folder of files that are being scanned by a command.
    pub fn scanner_dir(&self) -> PathBuf {
        self.data_dir.join("scanner")
    }

    /// The file with the key that clients encrypt for the content scanner.
    pub fn scanner_key_file(&self) -> PathBuf {
        self.data_dir.join("scanner.key")
    }

    /// The folder of the search index. It is built anew where it is missing.
    pub fn search_dir(&self) -> PathBuf {
        self.data_dir.join("search")
    }

    /// All of them that a backup is about.
    pub fn places(&self) -> chappe_admin::Places {
        chappe_admin::Places {
            database: self.database_dir(),
            media: self.media_dir(),
            signing_key: self.signing_key_file(),
            search: self.search_dir(),
        }
    }

    /// The folder of the database.
    pub fn database_dir(&self) -> PathBuf {
        self.data_dir.join("database")
    }
}
