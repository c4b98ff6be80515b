//! What an operator may set about accounts.

use argon2::Params;
use serde::{Deserialize, Serialize};

use crate::passwords::LONGEST;

/// The section `[accounts]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct AccountsConfig {
    /// How passwords are hashed and what they must look like.
    pub password: PasswordConfig,
    /// How long tokens live.
    pub tokens: TokenConfig,
    /// How much one account may keep.
    pub limits: LimitsConfig,
    /// How long accounts are good for.
    pub validity: ValidityConfig,
    /// Localparts nobody may register, beside those that are always reserved.
    pub reserved_names: Vec<String>,
    /// Whether somebody whose name stands in the text of an event counts as mentioned where the event does not say who is.
    pub guess_mentions: bool,
    /// Whether every encrypted event is pushed, so that clients can look into it (MSC4028).
    pub push_encrypted_events: bool,
    /// Whether people are told of threads that they follow, and of others only where they are mentioned (MSC4306).
    pub thread_subscriptions: bool,
    /// Whether it is not written down on which days people are here: nothing is counted. Follows from the statistics' own section.
    #[serde(skip)]
    pub forgets_days: bool,
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
    /// What stands behind each password in the bcrypt hashes that were imported from another server.
    pub bcrypt_pepper: Pepper,
    /// What a new password must look like.
    pub policy: PasswordPolicy,
}

/// A secret that is mixed into passwords.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Pepper(String);

impl Pepper {
    /// The secret.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper")
    }
}

impl Default for PasswordConfig {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
            lanes: 1,
            at_once: 2,
            waiting: 200,
            bcrypt_pepper: Pepper::default(),
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
    /// How hard it must be to guess, as zxcvbn scores it: from 0, not looked at, to 4.
    pub minimum_strength: u8,
}

impl PasswordPolicy {
    /// Whether there are passwords that follow it; the sentence says why not.
    pub fn check(&self) -> Result<(), String> {
        if self.minimum_strength > 4 {
            return Err("minimum_strength is at most 4".to_owned());
        }
        if self.minimum_length > LONGEST {
            return Err(format!("minimum_length is at most {LONGEST}"));
        }
        Ok(())
    }
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self {
            minimum_length: 8,
            require_digit: false,
            require_symbol: false,
            require_uppercase: false,
            require_lowercase: false,
            minimum_strength: 0,
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
    /// Messages waiting for one device; beyond, the oldest of those go who sent most of them.
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
    /// Bytes of the keys in one version of the key backup.
    pub backup_bytes: u64,
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
            pushers: 50,
            backup_versions: 50,
            backup_keys: 1_000_000,
            backup_bytes: 1 << 30,
        }
    }
}

/// The section `[accounts.validity]`: after how long an account ends unless its user says that it is still needed. Guests,
/// users of application services and the server itself have no end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidityConfig {
    /// Days from the making of an account to its end, and from each renewal; 0: accounts have no end.
    pub days: u32,
    /// How many days before the end mails go out, one for each.
    pub mail_days_before: Vec<u32>,
    /// Whether mails hold a link; otherwise a code that users type into their client.
    pub links: bool,
    /// Days after which an account that has ended is closed, without being erased; 0: never.
    pub close_after_days: u32,
    /// Who has no end: patterns with `*` and `?` of user ids, if they begin with `@`, or of e-mail addresses.
    pub exempt: Vec<String>,
}

impl Default for ValidityConfig {
    fn default() -> Self {
        Self {
            days: 0,
            mail_days_before: vec![60, 30, 15],
            links: true,
            close_after_days: 0,
            exempt: Vec::new(),
        }
    }
}

impl ValidityConfig {
    /// Whether accounts can live by it; the sentence says why not.
    pub fn check(&self) -> Result<(), String> {
        if self.days > 0 && self.mail_days_before.iter().any(|before| *before >= self.days) {
            return Err("mail_days_before must be less than days".to_owned());
        }
        if self.mail_days_before.len() > 20 {
            return Err("at most 20 mails go out before an end".to_owned());
        }
        Ok(())
    }
}
