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
    oauth(config, &mut found);
    federation(config, &mut found);
    appservices(config, &mut found);
    mail(config, &mut found);
    previews(config, &mut found);
    scanner(config, &mut found);
    livekit(config, &mut found);
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
    found.need(config.delivery.to_device_limit > 0, "delivery.to_device_limit", "must be at least 1");
    let version = &config.rooms.default_version;
    found.need(VERSIONS.contains(version), "rooms.default_version", "not one of the room versions 1 to 12");
    let agents = config.identity.profile == chappe_identity::Profile::Agents;
    let sentence = "goes with the profile `agents` of `identity`";
    found.need(agents || config.rooms.access.is_none(), "rooms.access", sentence);
    if let Some(kept) = &config.rooms.retention {
        let most = if kept.maximum_days == 0 { u32::MAX } else { kept.maximum_days };
        let sentence = "must be `maximum_days` at most";
        found.need(kept.minimum_days <= most, "rooms.retention.minimum_days", sentence);
        found.need(kept.default_days <= most, "rooms.retention.default_days", sentence);
        let sentence = "must be `minimum_days` at least, or 0";
        let enough = kept.default_days == 0 || kept.default_days >= kept.minimum_days;
        found.need(enough, "rooms.retention.default_days", sentence);
    }
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
    for (index, url) in config.client.livekit_services.iter().enumerate() {
        found.need(web(url), &format!("client.livekit_services.{index}"), "must be an http or https URL");
    }
    let link = service.invite_link.replace(['{', '}'], "");
    let sentence = "must be an http or https URL";
    found.need(link.is_empty() || web(&link), "identity.service.invite_link", sentence);
    for (name, policy) in &service.policies {
        let key = format!("identity.service.policies.{name}");
        let right = !policy.texts.is_empty() && policy.texts.values().all(|text| web(&text.url));
        found.need(right, &key, "needs texts, each with an http or https URL");
    }
}

fn previews(config: &Config, found: &mut Found) {
    let previews = &config.media.previews;
    for (name, hosts) in
        [("allowed_hosts", &previews.allowed_hosts), ("denied_hosts", &previews.denied_hosts)]
    {
        for (index, host) in hosts.iter().enumerate() {
            let key = format!("media.previews.{name}.{index}");
            found.need(chappe_media::is_host_pattern(host), &key, "must be a host, or `*.` and a domain");
        }
    }
    for (index, language) in previews.languages.iter().enumerate() {
        let right = |c: char| c.is_ascii_alphanumeric() || "-;=.*".contains(c);
        let key = format!("media.previews.languages.{index}");
        found.need(
            !language.is_empty() && language.chars().all(right),
            &key,
            "must be a language, such as `fr`",
        );
    }
    let seconds = previews.timeout_seconds;
    found.need((1..=60).contains(&seconds), "media.previews.timeout_seconds", "must be between 1 and 60");
    found.need(
        previews.max_page_bytes <= 16 << 20,
        "media.previews.max_page_bytes",
        "must be 16777216 at most",
    );
    found.need(
        previews.max_image_bytes <= 64 << 20,
        "media.previews.max_image_bytes",
        "must be 67108864 at most",
    );
    found.need(previews.redirects <= 10, "media.previews.redirects", "must be 10 at most");
    let minutes = previews.keep_days.saturating_mul(24 * 60);
    let kept = previews.keep_days > 0 && previews.fresh_minutes <= minutes;
    found.need(kept, "media.previews.keep_days", "must be at least 1 and longer than `fresh_minutes`");
    let fetched = !config.media.fetch_without_login || config.media.serve_without_login;
    found.need(fetched, "media.fetch_without_login", "goes with `serve_without_login`");
}

fn scanner(config: &Config, found: &mut Found) {
    let scanner = &config.scanner;
    let (clamd, command) = (scanner.clamd.is_some(), !scanner.command.is_empty());
    found.need(!clamd || !command, "scanner.command", "goes without `clamd`");
    let lists = scanner.allowed_mimetypes.is_empty() || scanner.blocked_mimetypes.is_empty();
    found.need(lists, "scanner.blocked_mimetypes", "goes without `allowed_mimetypes`");
    found.need(!scanner.enforce || clamd || command, "scanner.enforce", "needs `clamd` or `command`");
    found.need(scanner.at_once > 0, "scanner.at_once", "must be at least 1");
    let seconds = scanner.timeout_seconds;
    found.need((1..=600).contains(&seconds), "scanner.timeout_seconds", "must be between 1 and 600");
    let year = scanner.verdict_minutes <= 525_600;
    found.need(year, "scanner.verdict_minutes", "must be 525600 at most");
    found.need(scanner.enforced_days > 0, "scanner.enforced_days", "must be at least 1");
}

fn livekit(config: &Config, found: &mut Found) {
    let Some(livekit) = &config.livekit else { return };
    let scheme = |text: &str, schemes: &[&str]| {
        url::Url::parse(text).is_ok_and(|url| schemes.contains(&url.scheme()) && url.host().is_some())
    };
    found.need(scheme(&livekit.url, &["ws", "wss"]), "livekit.url", "must be a ws or wss URL");
    let api = livekit.api_url.is_empty() || scheme(&livekit.api_url, &["http", "https"]);
    found.need(api, "livekit.api_url", "must be an http or https URL");
    found.need(!livekit.api_key.is_empty(), "livekit.api_key", "is empty");
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
    found.refuse("accounts.password.policy", password.policy.check());
    found.refuse("accounts.validity", config.accounts.validity.check());
    found.refuse("admin.statistics", config.admin.statistics.check());
    let mailed = config.accounts.validity.days == 0 || config.mail.is_some();
    found.need(mailed, "accounts.validity.days", "needs the section `mail`");
    found.need(password.at_once > 0, "accounts.password.at_once", "must be at least 1");
    found.need(
        password.waiting >= password.at_once,
        "accounts.password.waiting",
        "must be at least `at_once`",
    );
}

fn oauth(config: &Config, found: &mut Found) {
    let section = &config.oauth;
    let day = (60..=86_400).contains(&section.browser_session_seconds);
    found.need(day, "oauth.browser_session_seconds", "must be between 60 and 86400");
    found.need(section.unused_client_hours > 0, "oauth.unused_client_hours", "must be at least 1");
    found.need(section.max_clients > 0, "oauth.max_clients", "must be at least 1");
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
    let whole = |text: &str| chappe_federation::is_public_key(text);
    let pinned = config.federation.pinned_keys.iter();
    for (server, id, key) in
        pinned.flat_map(|(server, keys)| keys.iter().map(move |(id, key)| (server, id, key)))
    {
        let sentence = format!("{id} of {server} is not an ed25519 public key in base64");
        found.need(whole(key.text()), "federation.pinned_keys", &sentence);
    }
    let Some(network) = &config.federation.network else { return };
    let roots = &network.trust_roots;
    let right = !roots.is_empty() && roots.values().all(|key| whole(key));
    found.need(right, "federation.network.trust_roots", "needs ed25519 public keys in base64");
    found.need(network.fetch_seconds >= 60, "federation.network.fetch_seconds", "must be at least 60");
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
