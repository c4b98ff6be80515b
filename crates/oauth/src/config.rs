//! The section `[oauth]` of the configuration.

use chappe_web::Rate;
use serde::Deserialize;

/// `[oauth]`: whether clients log in with this server's own pages.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether anything of it is answered.
    pub enabled: bool,
    /// How long a browser stays logged in to the pages, in seconds.
    pub browser_session_seconds: u64,
    /// How long a registered client is kept that nobody is logged in with, in hours.
    pub unused_client_hours: u64,
    /// Clients registered at most.
    pub max_clients: u32,
    /// Whether web clients at `http` addresses are taken: for tests.
    pub insecure_clients: bool,
    /// How often who may do what.
    pub rates: Rates,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            browser_session_seconds: 3600,
            unused_client_hours: 24,
            max_clients: 20_000,
            insecure_clients: false,
            rates: Rates::default(),
        }
    }
}

/// The section `[oauth.rates]`; each entry is `{ per_second, burst }`, and 0 per second is unlimited. Passwords are counted
/// with the log-ins of the client API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Registrations of clients from one address.
    pub registration: Rate,
    /// Requests for tokens and revocations from one address.
    pub token: Rate,
    /// Devices without a browser that ask for a code, from one address.
    pub device: Rate,
    /// Codes of such devices that one user types.
    pub user_code: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            registration: Rate::new(0.005, 20),
            token: Rate::new(5.0, 300),
            device: Rate::new(0.2, 20),
            user_code: Rate::new(0.05, 10),
        }
    }
}
