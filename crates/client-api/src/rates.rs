//! How often who may do what over the client API.

use std::sync::Arc;

use axum::extract::FromRef;
use chappe_web::{Error, Origin, Rate, RateLimiter};
use serde::Deserialize;

use crate::{Api, Config, requester::Requester};

/// The section `[client.rates]`; each entry is `{ per_second, burst }`, and 0 per second is unlimited.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Requests of one user, whatever they are.
    pub request: Rate,
    /// Log-ins from one address.
    pub login_by_ip: Rate,
    /// Log-ins to one account, right or wrong.
    pub login_by_account: Rate,
    /// Steps on the way to an identity provider and back, from one address.
    pub sso: Rate,
    /// Registrations, and questions whether a name or a token is good, from one address.
    pub registration: Rate,
    /// Events sent by one user.
    pub message: Rate,
    /// Changes of name and picture by one user: all of the user's rooms are told of each.
    pub profile: Rate,
    /// Typing, receipts and presence of one user.
    pub signal: Rate,
    /// Requests of one user with messages straight to devices.
    pub to_device: Rate,
    /// New names and identity keys of one user's devices: everybody who shares a room hears of them.
    pub device: Rate,
    /// Joins, knocks and room creations of one user.
    pub join: Rate,
    /// Invites by one user.
    pub invite: Rate,
    /// Invites of e-mail addresses by one user.
    pub address_invite: Rate,
    /// Searches of one user, look-ups that may go to other servers, and the old ways of asking for everything at once.
    pub search: Rate,
    /// Uploads of one user.
    pub upload: Rate,
    /// Media of other servers that one user, or one address without log-in, has this server fetch and keep.
    pub remote_media: Rate,
    /// Files that one user, or one address without log-in, has this server scan.
    pub scan: Rate,
    /// Other servers that one user has this server ask for keys.
    pub remote_keys: Rate,
    /// Calls of many people that are entered from one address.
    pub call: Rate,
    /// Web pages that one user has this server fetch for previews.
    pub preview: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            request: Rate::new(100.0, 2_000),
            login_by_ip: Rate::new(0.2, 20),
            login_by_account: Rate::new(0.05, 10),
            sso: Rate::new(1.0, 60),
            registration: Rate::new(0.2, 10),
            message: Rate::new(10.0, 100),
            profile: Rate::new(0.02, 10),
            signal: Rate::new(20.0, 1_000),
            to_device: Rate::new(20.0, 1_000),
            device: Rate::new(0.2, 20),
            join: Rate::new(0.5, 30),
            invite: Rate::new(0.5, 50),
            address_invite: Rate::new(0.2, 10),
            search: Rate::new(5.0, 50),
            upload: Rate::new(2.0, 50),
            remote_media: Rate::new(2.0, 500),
            scan: Rate::new(2.0, 500),
            remote_keys: Rate::new(200.0, 50_000),
            call: Rate::new(5.0, 300),
            preview: Rate::new(0.5, 60),
        }
    }
}

/// What messages are counted as.
const MESSAGE: &str = "message";

/// Counts what is done, by the rates of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    limiter: RateLimiter,
    config: Arc<Config>,
}

impl FromRef<Api> for Limits {
    fn from_ref(api: &Api) -> Self {
        Self { limiter: FromRef::from_ref(api), config: FromRef::from_ref(api) }
    }
}

impl Limits {
    /// Counts an action of an address. All of an IPv6 network of 64 bits counts as one.
    pub(crate) fn ip(
        &self,
        action: &'static str,
        origin: Origin,
        rate: impl FnOnce(&Rates) -> Rate,
    ) -> Result<(), Error> {
        self.limiter.check(action, &origin.subject(), rate(&self.config.rates))
    }

    /// Counts an action of a user, unless it is one of an application service that is not counted.
    pub(crate) fn user(
        &self,
        action: &'static str,
        requester: &Requester,
        rate: impl FnOnce(&Rates) -> Rate,
    ) -> Result<(), Error> {
        if !requester.is_counted() {
            return Ok(());
        }
        let rate = match requester.rate {
            Some(own) if action == MESSAGE => Rate::new(own.per_second.into(), own.burst),
            _ => rate(&self.config.rates),
        };
        self.limiter.check(action, requester.user().as_str(), rate)
    }

    /// Counts the other servers that a user has this server ask for keys.
    pub(crate) fn remote_keys(&self, requester: &Requester, servers: usize) -> Result<(), Error> {
        if servers == 0 || !requester.is_counted() {
            return Ok(());
        }
        let (user, rate) = (requester.user().as_str(), self.config.rates.remote_keys);
        self.limiter.check_many("remote keys", user, rate, u32::try_from(servers).unwrap_or(u32::MAX))
    }

    /// Counts a message of a user.
    pub(crate) fn message(&self, requester: &Requester) -> Result<(), Error> {
        self.user(MESSAGE, requester, |rates| rates.message)
    }

    /// Counts what a user lets others in their rooms know without a message: typing, a receipt, presence.
    pub(crate) fn signal(&self, requester: &Requester) -> Result<(), Error> {
        self.user("signal", requester, |rates| rates.signal)
    }

    /// Counts a change of a user's devices that others hear of.
    pub(crate) fn device(&self, requester: &Requester) -> Result<(), Error> {
        self.user("device", requester, |rates| rates.device)
    }

    /// Counts a question that other servers may have to answer: by user, or by address where nobody is logged in.
    pub(crate) fn asking(&self, requester: Option<&Requester>, origin: Origin) -> Result<(), Error> {
        match requester {
            Some(requester) => self.user("search", requester, |rates| rates.search),
            None => self.ip("search", origin, |rates| rates.search),
        }
    }

    /// Counts an action on whatever a request names, which need not exist.
    pub(crate) fn named(
        &self,
        action: &'static str,
        subject: &str,
        rate: impl FnOnce(&Rates) -> Rate,
    ) -> Result<(), Error> {
        self.limiter.check(action, subject, rate(&self.config.rates))
    }
}
