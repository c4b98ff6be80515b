//! Configuration of the client API.

use chappe_identity::Registration;
use chappe_search::Circle;
use ruma::OwnedUserId;
use serde::Deserialize;

use crate::Rates;

/// The section `[client]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a configuration, each for itself")]
pub struct Config {
    /// The URL under which clients reach this server, handed to them by well-known and log-in; empty: not told. An
    /// operator says it once for all, outside this section.
    #[serde(skip)]
    pub public_base_url: String,
    /// Whether the identity service of this server is reached under that URL; it follows from what listeners serve.
    #[serde(skip)]
    pub identity_service: bool,
    /// The page on which users of OAuth clients manage their account, if this server is their authorization server; it
    /// follows from the section of OAuth.
    #[serde(skip)]
    pub account_page: Option<String>,
    /// Whether this server itself gives access to a LiveKit server; it follows from the section of calls.
    #[serde(skip)]
    pub livekit: bool,
    /// Who may sign up.
    pub registration: Registration,
    /// Whether access tokens in the query string are taken (old clients; they end up in the logs of proxies).
    pub tokens_in_query: bool,
    /// Whether users may delete and add e-mail addresses by themselves.
    pub threepid_changes: bool,
    /// Whether users may choose their display name, in their profile or in a room; administrators may anyway.
    pub displayname_changes: bool,
    /// Whom users may turn to (`/.well-known/matrix/support`).
    pub support_contacts: Vec<SupportContact>,
    /// A page with help (`/.well-known/matrix/support`); empty: none.
    pub support_page: String,
    /// Relay for calls; absent: none.
    pub turn: Option<Turn>,
    /// Services that hand out access to a LiveKit server for calls of many people, by their URLs (MSC4195).
    pub livekit_services: Vec<String>,
    /// Where clients get the style of maps for locations; empty: not told.
    pub map_style_url: String,
    /// How often who may do what.
    pub rates: Rates,
    /// Whom the user directory shows, unless they wish otherwise; absent: everybody where there is a directory of the network.
    pub user_directory: Option<Circle>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_base_url: String::new(),
            identity_service: false,
            account_page: None,
            livekit: false,
            registration: Registration::default(),
            tokens_in_query: false,
            threepid_changes: true,
            displayname_changes: true,
            support_contacts: Vec::new(),
            support_page: String::new(),
            turn: None,
            livekit_services: Vec::new(),
            map_style_url: String::new(),
            rates: Rates::default(),
            user_directory: None,
        }
    }
}

/// A contact of `/.well-known/matrix/support`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupportContact {
    /// `m.role.admin` or `m.role.security`.
    pub role: String,
    /// E-mail address.
    #[serde(default)]
    pub email_address: Option<String>,
    /// Matrix user.
    #[serde(default)]
    pub matrix_id: Option<OwnedUserId>,
}

/// The section `[client.turn]`: time-limited credentials for a TURN server with a shared secret.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Addresses, such as `turn:turn.example.org?transport=udp`.
    pub uris: Vec<String>,
    /// The secret shared with the TURN server (`static-auth-secret` of coturn).
    pub secret: String,
    /// Seconds for which credentials are good.
    #[serde(default = "a_day")]
    pub lifetime_s: u64,
}

fn a_day() -> u64 {
    86_400
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("uris", &self.uris).finish_non_exhaustive()
    }
}
