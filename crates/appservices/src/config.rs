//! Configuration of application services.

use std::path::PathBuf;

use serde::Deserialize;

/// The section `[appservices]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Registrations: YAML files, or folders of which each `*.yaml` and `*.yml` is one.
    pub registrations: Vec<PathBuf>,
    /// How long a service may take for a transaction, in seconds.
    pub timeout: u64,
    /// How long a client waits for what a service is asked, in seconds.
    pub query_timeout: u64,
    /// The pause after the first transaction that was not taken, in milliseconds; it doubles with each.
    pub backoff_min_ms: u64,
    /// The longest pause, in seconds.
    pub backoff_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registrations: Vec::new(),
            timeout: 60,
            query_timeout: 10,
            backoff_min_ms: 1_000,
            backoff_max: 300,
        }
    }
}
