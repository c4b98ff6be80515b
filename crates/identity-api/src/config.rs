//! Configuration of the identity service's HTTP.

use chappe_web::Rate;
use serde::Deserialize;

/// The section `[identity_api]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often who may ask what.
    pub rates: Rates,
}

/// The section `[identity_api.rates]`; each entry is `{ per_second, burst }`, and 0 per second is unlimited.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Questions where an address belongs, from one address of the network.
    pub info: Rate,
    /// Requests of one user, whatever they are.
    pub request: Rate,
    /// Accounts made, from one address of the network.
    pub registration: Rate,
    /// Addresses looked up by one user of this server or of one that the map names, by all users of another server
    /// together, or without an account from one address of the network.
    pub lookup: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            info: Rate::new(2.0, 200),
            request: Rate::new(5.0, 200),
            registration: Rate::new(0.5, 30),
            lookup: Rate::new(0.5, 2_000),
        }
    }
}
