//! Configuration of calls.

use std::path::PathBuf;

use serde::Deserialize;

/// The section `[livekit]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients reach the SFU, such as `wss://livekit.example.gouv.fr`.
    pub url: String,
    /// Where this server reaches its API; empty: at the same place, over HTTP.
    #[serde(default)]
    pub api_url: String,
    /// The name of the key that this server shares with the SFU.
    pub api_key: String,
    /// The file with the secret of that key.
    pub api_secret_file: PathBuf,
}

impl Config {
    /// Where the API is.
    pub(crate) fn api(&self) -> String {
        let at = if self.api_url.is_empty() { &self.url } else { &self.api_url };
        let at = at.trim_end_matches('/');
        // ws → http, wss → https.
        at.strip_prefix("ws").map_or_else(|| at.to_owned(), |rest| format!("http{rest}"))
    }
}
