//! What an operator may set about accounts.

use argon2::Params;
use serde::{Deserialize, Serialize};

/// The section `[accounts]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsConfig {
    /// How passwords are hashed and what they must look like.
    pub password: PasswordConfig,
    /// How long tokens live.
    pub tokens: TokenConfig,
    /// How much one account may keep.
    pub limits: LimitsConfig,
    /// Localparts nobody may register, beside those that are always reserved.
    pub reserved_names: Vec<String>,
    /// Whether somebody whose name stands in the text of an event counts as mentioned where the event does not say who is.
    pub guess_mentions: bool,
    /// Whether every encrypted event is pushed, so that clients can look into it (MSC4028).
    pub push_encrypted_events: bool,
}

/// The section `[accounts.password]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordConfig {
    /// Memory of one hash in KiB (argon2id `m`).
    pub memory_kib: u32,
    /// Passes over that memory (argon2id `t`).
    pub passes: u32,
    /// Lanes (argon2id `p`).
    pub lanes: u32,
    /// Hashes worked out at the same time.
    pub at_once: usize,
    /// Hashes that may wait for their turn; beyond, clients are asked to come back later.
    pub waiting: usize,
    /// What a new password must look like.
    pub policy: PasswordPolicy,
}

impl Default for PasswordConfig {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
            lanes: 1,
            at_once: 2,
            waiting: 200,
            policy: PasswordPolicy::default(),
        }
    }
}

impl PasswordConfig {
    /// Whether passwords can be hashed at this cost; the sentence says why not.
    pub fn check_cost(&self) -> Result<(), String> {
        self.cost().map(drop).map_err(|error| error.to_string())
    }

    pub(crate) fn cost(&self) -> Result<Params, argon2::Error> {
        Params::new(self.memory_kib, self.passes, self.lanes, None)
    }
}

/// The section `[accounts.password.policy]`: what a new password must look like.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "five independent switches, as in MSC2000")]
pub struct PasswordPolicy {
    /// Fewest characters.
    pub minimum_length: usize,
    /// At least one ASCII digit.
    pub require_digit: bool,
    /// At least one character that is neither an ASCII letter nor an ASCII digit.
    pub require_symbol: bool,
    /// At least one ASCII capital.
    pub require_uppercase: bool,
    /// At least one ASCII small letter.
    pub require_lowercase: bool,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self {
            minimum_length: 8,
            require_digit: false,
            require_symbol: false,
            require_uppercase: false,
            require_lowercase: false,
        }
    }
}

/// The section `[accounts.tokens]`; all lifetimes in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// Access tokens of clients that can refresh.
    pub refreshable_seconds: u64,
    /// Access tokens of clients that cannot; absent: until logged out.
    pub access_seconds: Option<u64>,
    /// Refresh tokens; absent: until logged out.
    pub refresh_seconds: Option<u64>,
    /// Log-in tokens.
    pub login_seconds: u64,
    /// OpenID tokens.
    pub openid_seconds: u64,
    /// Sessions of user-interactive authentication.
    pub uia_seconds: u64,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            refreshable_seconds: 3600,
            access_seconds: None,
            refresh_seconds: None,
            login_seconds: 120,
            openid_seconds: 3600,
            uia_seconds: 3600,
        }
    }
}

/// The section `[accounts.limits]`: what one account may keep.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Devices.
    pub devices: usize,
    /// One-time keys of one device.
    pub one_time_keys: u32,
    /// Messages waiting for one device; beyond, the oldest go.
    pub to_device: usize,
    /// Items of account data, over all rooms.
    pub account_data_items: i64,
    /// Bytes of one item of account data.
    pub account_data_bytes: usize,
    /// Push rules that are not the server's own.
    pub push_rules: usize,
    /// Filters.
    pub filters: usize,
    /// Pushers.
    pub pushers: usize,
    /// Versions of the key backup.
    pub backup_versions: usize,
    /// Keys in one version of the key backup.
    pub backup_keys: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            devices: 300,
            one_time_keys: 200,
            to_device: 20_000,
            account_data_items: 20_000,
            account_data_bytes: 63_000,
            push_rules: 1_000,
            filters: 1_000,
            pushers: 100,
            backup_versions: 50,
            backup_keys: 1_000_000,
        }
    }
}
