//! What the types of the configuration cannot say: values out of range, values that do not go together.

use std::collections::BTreeSet;

use chappe_rooms::VERSIONS;
use tracing_subscriber::EnvFilter;

use super::{Api, Config};

/// What is wrong with one key.
pub(super) struct Problem {
    /// The key, such as `listeners.0.port`.
    pub(super) key: String,
    /// What must be.
    pub(super) sentence: String,
}

/// Every problem in one go.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Found::default();
    general(config, &mut found);
    listeners(config, &mut found);
    accounts(config, &mut found);
    federation(config, &mut found);
    appservices(config, &mut found);
    mail(config, &mut found);
    for (key, sentence) in config.sso.problems(config.identity.profile) {
        found.need(false, &format!("sso.{key}"), sentence);
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn need(&mut self, holds: bool, key: &str, sentence: &str) {
        if !holds {
            self.0.push(Problem { key: key.to_owned(), sentence: sentence.to_owned() });
        }
    }

    fn refuse<T>(&mut self, key: &str, outcome: Result<T, impl std::fmt::Display>) {
        if let Err(error) = outcome {
            self.need(false, key, &error.to_string());
        }
    }
}

fn general(config: &Config, found: &mut Found) {
    let url = url::Url::parse(&config.public_baseurl);
    let web = url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    found.need(web, "public_baseurl", "must be an http or https URL");
    found.refuse("log.level", EnvFilter::try_new(&config.log.level));
    let process = &config.process;
    found.need(process.shutdown_seconds > 0, "process.shutdown_seconds", "must be at least 1");
    found.need(process.max_connections > 0, "process.max_connections", "must be at least 1");
    found.need(process.header_timeout_seconds > 0, "process.header_timeout_seconds", "must be at least 1");
    let version = &config.rooms.default_version;
    found.need(VERSIONS.contains(version), "rooms.default_version", "not one of the room versions 1 to 12");
    if let Some(notices) = &config.rooms.notices {
        let id = ruma::UserId::parse(format!("@{}:{}", notices.user, config.server_name));
        let whole = id.is_ok_and(|id| id.validate_strict().is_ok());
        found.need(whole, "rooms.notices.user", "cannot be a user name");
    }
    found.need(config.identity.validation_hours > 0, "identity.validation_hours", "must be at least 1");
    let controls = config.identity.service_name.chars().any(char::is_control);
    found.need(!controls, "identity.service_name", "has a control character");
    let service = &config.identity.service;
    let key = "identity.service.invite_days";
    found.need((1..=3650).contains(&service.invite_days), key, "must be between 1 and 3650");
    let key = "identity.service.lookup_addresses";
    found.need((1..=100_000).contains(&service.lookup_addresses), key, "must be between 1 and 100000");
    let web = |text: &str| url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    let link = service.invite_link.replace(['{', '}'], "");
    let sentence = "must be an http or https URL";
    found.need(link.is_empty() || web(&link), "identity.service.invite_link", sentence);
    for (name, policy) in &service.policies {
        let key = format!("identity.service.policies.{name}");
        let right = !policy.texts.is_empty() && policy.texts.values().all(|text| web(&text.url));
        found.need(right, &key, "needs texts, each with an http or https URL");
    }
}

fn listeners(config: &Config, found: &mut Found) {
    found.need(!config.listeners.is_empty(), "listeners", "at least one is needed");
    let mut sockets = BTreeSet::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let key = |name: &str| format!("listeners.{index}.{name}");
        let socket = listener.socket();
        found.need(!listener.apis.is_empty(), &key("apis"), "is empty");
        let fresh = socket.port() == 0 || sockets.insert(socket);
        found.need(fresh, &key("port"), &format!("{socket} is there twice"));
    }
    let serves = |api| config.listeners.iter().any(|listener| listener.apis.contains(&api));
    let useful = serves(Api::Client) || serves(Api::Federation);
    found.need(useful, "listeners", "none serves `client` or `federation`");
    let admin = &config.admin;
    let (text, file) = (&admin.registration_shared_secret, &admin.registration_shared_secret_file);
    let (key, secret) = ("admin.registration_shared_secret", text.is_some() || file.is_some());
    found.need(text.is_none() || file.is_none(), key, "goes without `registration_shared_secret_file`");
    found.need(text.as_ref().is_none_or(|text| !text.trim().is_empty()), key, "is empty");
    let key = if text.is_some() { key } else { "admin.registration_shared_secret_file" };
    found.need(!secret || serves(Api::Admin), key, "no listener serves `admin`");
}

fn accounts(config: &Config, found: &mut Found) {
    let password = &config.accounts.password;
    found.refuse("accounts.password", password.check_cost());
    found.need(password.at_once > 0, "accounts.password.at_once", "must be at least 1");
    found.need(
        password.waiting >= password.at_once,
        "accounts.password.waiting",
        "must be at least `at_once`",
    );
}

fn federation(config: &Config, found: &mut Found) {
    for (index, pattern) in config.federation.allow.iter().flatten().enumerate() {
        let right = chappe_identity::is_server_pattern(pattern);
        found.need(
            right,
            &format!("federation.allow.{index}"),
            "neither a server name nor `*.` and a domain",
        );
    }
}

fn appservices(config: &Config, found: &mut Found) {
    let section = &config.appservices;
    found.need(section.timeout > 0, "appservices.timeout", "must be at least 1");
    found.need(section.query_timeout > 0, "appservices.query_timeout", "must be at least 1");
}

fn mail(config: &Config, found: &mut Found) {
    let Some(mail) = &config.mail else {
        let sentence = "addresses cannot be validated without the section `mail`";
        return found.need(!config.client.registration.email, "client.registration.email", sentence);
    };
    let together = mail.username.is_some() == mail.password_file.is_some();
    found.need(together, "mail", "`username` and `password_file` go together");
    found.refuse("mail.from", mail.sender());
    found.need(!mail.host.trim().is_empty(), "mail.host", "is empty");
}
