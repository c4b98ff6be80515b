//! How often who may do what over the client API.

use std::net::IpAddr;

use chappe_web::{Error, Origin, Rate, RateLimiter};
use ruma::UserId;
use serde::Deserialize;

/// The section `[client.rates]`; each entry is `{ per_second, burst }`, and 0 per second is unlimited.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Log-ins from one address.
    pub login_by_ip: Rate,
    /// Log-ins to one account, right or wrong.
    pub login_by_account: Rate,
    /// Registrations, and questions whether a name or a token is good, from one address.
    pub registration: Rate,
    /// Events sent by one user.
    pub message: Rate,
    /// Joins, knocks and room creations of one user.
    pub join: Rate,
    /// Invites by one user.
    pub invite: Rate,
    /// Searches and look-ups of one user that may go to other servers.
    pub search: Rate,
    /// Uploads of one user.
    pub upload: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            login_by_ip: Rate::new(0.2, 20),
            login_by_account: Rate::new(0.05, 10),
            registration: Rate::new(0.2, 10),
            message: Rate::new(10.0, 100),
            join: Rate::new(0.5, 30),
            invite: Rate::new(0.5, 50),
            search: Rate::new(5.0, 50),
            upload: Rate::new(2.0, 50),
        }
    }
}

/// Counts an action of an address. All of an IPv6 network of 64 bits counts as one.
pub(crate) fn by_ip(
    limiter: &RateLimiter,
    action: &'static str,
    origin: Origin,
    rate: Rate,
) -> Result<(), Error> {
    let subject = match origin.0 {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("{:x?}", &v6.segments()[..4]),
    };
    limiter.check(action, &subject, rate)
}

/// Counts an action of a user.
pub(crate) fn by_user(
    limiter: &RateLimiter,
    action: &'static str,
    user: &UserId,
    rate: Rate,
) -> Result<(), Error> {
    limiter.check(action, user.as_str(), rate)
}
