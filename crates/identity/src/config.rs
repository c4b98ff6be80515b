//! The sections `[identity]` and `[mail]` of the configuration.

use std::path::PathBuf;

use lettre::{address::AddressError, message::Mailbox};
use serde::{Deserialize, Serialize};

/// `[identity]`: who may sign up and how addresses are validated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How accounts are named.
    pub profile: Profile,
    /// Which addresses may be used.
    pub addresses: Addresses,
    /// Hosts that `next_link` may lead to, beside the server's own.
    pub next_link_hosts: Vec<String>,
    /// How long a validation can be used, in hours.
    pub validation_hours: u32,
    /// Mails to one address in an hour; 0 for no limit.
    pub mails_per_address: u32,
    /// Mails asked for from one IP address in an hour; 0 for no limit.
    pub mails_per_ip: u32,
    /// Do not tell whether an address has an account: say so by mail only.
    pub hide_known_addresses: bool,
    /// The language that comes first in mails and pages when the client names none.
    pub language: Language,
    /// What this service is called in mails and pages; the server name if empty.
    pub service_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profile: Profile::Matrix,
            addresses: Addresses::Listed,
            next_link_hosts: Vec::new(),
            validation_hours: 24,
            mails_per_address: 5,
            mails_per_ip: 30,
            hide_known_addresses: false,
            language: Language::Fr,
            service_name: String::new(),
        }
    }
}

/// How accounts are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// As the user chooses, as on any Matrix server.
    #[default]
    Matrix,
    /// User id and display name follow from the e-mail address.
    Agents,
}

/// Which addresses may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addresses {
    /// Those that a rule of the allow-list lets in; nobody as long as it is empty.
    #[default]
    Listed,
    /// All.
    Any,
}

/// A language of mails and pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// French.
    #[default]
    Fr,
    /// English.
    En,
}

impl Language {
    /// The first language of an `Accept-Language` header that is spoken here.
    pub fn accepted(header: &str) -> Option<Self> {
        header.split(',').take(20).find_map(|item| {
            let tag = item.split([';', '-', '_']).next().unwrap_or_default().trim();
            match tag.to_ascii_lowercase().as_str() {
                "fr" => Some(Self::Fr),
                "en" => Some(Self::En),
                _ => None,
            }
        })
    }
}

/// `[mail]`: how mail goes out. Without it no address can be validated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailConfig {
    /// Host name of the mail relay.
    pub host: String,
    /// Its port; by default 465 for `tls`, 587 for `starttls`, 25 for `plain`.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default)]
    pub security: Security,
    /// User name, if the relay wants one.
    #[serde(default)]
    pub username: Option<String>,
    /// A file that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The sender: `Name <address>` or an address.
    pub from: String,
    /// PEM file of a certificate authority to trust beside the system's.
    #[serde(default)]
    pub certificate_authority: Option<PathBuf>,
    /// Give up after so many seconds.
    #[serde(default = "ten")]
    pub timeout_seconds: u64,
}

impl MailConfig {
    /// The sender as it stands in mails: why not, if it cannot be read.
    pub fn sender(&self) -> Result<Mailbox, AddressError> {
        self.from.parse()
    }
}

fn ten() -> u64 {
    10
}

/// How the connection to the mail relay is protected. Certificates are always checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// `STARTTLS`, required.
    #[default]
    Starttls,
    /// None: only for a relay on the same machine or a protected network.
    Plain,
}

#[cfg(test)]
mod tests {
    use super::Language;

    #[test]
    fn accept_language() {
        assert_eq!(Language::accepted("en-GB,en;q=0.9,fr;q=0.8"), Some(Language::En));
        assert_eq!(Language::accepted("de, fr-FR;q=0.5"), Some(Language::Fr));
        assert_eq!(Language::accepted("*"), None);
    }
}
