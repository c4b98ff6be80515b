//! What parts of the server are given of the configuration, with what follows from sections that are not theirs.

use std::collections::BTreeMap;

use chappe_federation::OldKey;
use chappe_identity::Profile;
use chappe_oauth::LogInCounts;
use chappe_web::RateLimiter;
use ruma::OwnedServerSigningKeyId;

use crate::config::{Api, Config};

/// Accounts: whether it is written down who was here follows from what is counted.
pub(crate) fn accounts(config: &Config) -> chappe_accounts::AccountsConfig {
    let mut section = config.accounts.clone();
    section.forgets_days = config.admin.statistics.keep_days == 0;
    section
}

/// Rooms: the rules of the State's network go with its profile, whether or not there is something to say about them.
pub(crate) fn rooms(config: &Config) -> chappe_rooms::Config {
    let mut section = config.rooms.clone();
    section.access = (config.identity.profile == Profile::Agents).then(|| section.access.unwrap_or_default());
    section
}

/// Federation, with the keys of before that are kept beside the signing key.
pub(crate) fn federation(
    config: &Config,
    old_keys: &BTreeMap<OwnedServerSigningKeyId, OldKey>,
) -> chappe_federation::Config {
    let mut section = config.federation.clone();
    section.old_keys.extend(old_keys.clone());
    section
}

/// The client API, with what is said once for all.
pub(crate) fn client(config: &Config) -> chappe_client_api::Config {
    let mut section = config.client.clone();
    section.public_base_url.clone_from(&config.public_baseurl);
    section.account_page = config
        .oauth
        .enabled
        .then(|| format!("{}{}", config.public_baseurl.trim_end_matches('/'), chappe_oauth::ACCOUNT_PATH));
    section.livekit = config.livekit.is_some();
    section.identity_service = config.listeners.iter().any(|listener| listener.apis.contains(&Api::Identity));
    section
}

/// How log-ins on the pages of OAuth are counted: together with those of the client API.
pub(crate) fn log_ins(config: &Config, limiter: &RateLimiter) -> LogInCounts {
    let rates = &config.client.rates;
    LogInCounts {
        limiter: limiter.clone(),
        by_ip: rates.login_by_ip,
        by_account: rates.login_by_account,
        sign_ups: rates.registration,
    }
}
