//! Configuration of the HTTP skin.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

/// Limits and proxies. Shared by every request as an extension.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address ranges of reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of a request body where the endpoint does not say otherwise.
    pub body_limit: usize,
    /// Bytes that the bodies over 64 KiB being read at a time on a listener may have together, and as many for the others; one
    /// address has half of what other addresses leave. Beyond, requests are put off.
    pub bodies_limit: usize,
    /// Bytes that answers over 64 KiB may have together on a listener until they are fetched; one address has half of what other
    /// addresses leave. Beyond, those give way of which nothing was fetched for ten seconds, or after a minute less than 64 KiB a
    /// second, or requests are put off.
    pub answers_limit: usize,
    /// Seconds in which a request body must have arrived.
    pub body_timeout_s: u64,
    /// Bytes of a request's path and query.
    pub uri_limit: usize,
}

impl Settings {
    /// Whether an address is that of a proxy of ours.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|range| range.contains(&address))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            body_limit: 1 << 20,
            bodies_limit: 256 << 20,
            answers_limit: 1 << 30,
            body_timeout_s: 60,
            uri_limit: 16 << 10,
        }
    }
}
