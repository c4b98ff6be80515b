//! The sections `[identity]` and `[mail]` of the configuration.

use std::{collections::BTreeMap, path::PathBuf};

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
    /// The identity service.
    pub service: ServiceConfig,
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
            service: ServiceConfig::default(),
        }
    }
}

/// `[identity.service]`: the identity service of this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// Hosts (with their port where it is not 443) under which clients name this identity service, beside the server name
    /// and the host of the public base URL.
    pub names: Vec<String>,
    /// Whether the address of a new account is bound to it, so that others find it by the address. Unless said, this
    /// follows the profile: `agents` binds.
    pub bind_new_accounts: Option<bool>,
    /// Where the mail of an invitation leads; `{address}` and `{token}` are replaced. Empty: the public base URL.
    pub invite_link: String,
    /// How long an invitation of an address waits, in days.
    pub invite_days: u32,
    /// Invitations of addresses by one user in an hour; 0 for no limit.
    pub invites_per_sender: u32,
    /// How long hashed look-ups use one pepper, in days; 0 for ever.
    pub pepper_days: u32,
    /// Addresses in one look-up.
    pub lookup_addresses: usize,
    /// Whether look-ups of version 1 are answered: without hashes and without an account.
    pub legacy_lookups: bool,
    /// Policies that users must accept, by name.
    pub policies: BTreeMap<String, Policy>,
    /// Other identity servers of this network, which may be reached at `outbound.allowed_ranges`.
    pub servers: Vec<String>,
    /// Whether users may name any other identity server; those are reached on the public Internet alone.
    pub other_servers: bool,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            bind_new_accounts: None,
            invite_link: String::new(),
            invite_days: 14,
            invites_per_sender: 30,
            pepper_days: 7,
            lookup_addresses: 1000,
            legacy_lookups: false,
            policies: BTreeMap::new(),
            servers: Vec::new(),
            other_servers: true,
        }
    }
}

/// A policy of the identity service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its version.
    pub version: String,
    /// Its texts by language, such as `fr`.
    pub texts: BTreeMap<String, PolicyText>,
}

/// A policy in one language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// Its title.
    pub name: String,
    /// Where it can be read. A new version needs a new URL: it is the URL that is accepted.
    pub url: String,
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
    /// A folder with mails that replace the built-in ones: `invite.fr.txt` and `invite.fr.html` for instance.
    #[serde(default)]
    pub templates: Option<PathBuf>,
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
