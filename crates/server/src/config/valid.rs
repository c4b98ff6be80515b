//! What the types of the configuration cannot say: values that do not go together.

use std::collections::BTreeSet;

use super::{Api, Config};

/// Every problem in one go, each naming its key.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut need = |holds: bool, sentence: &str| {
        if !holds {
            problems.push(sentence.to_owned());
        }
    };
    match url::Url::parse(&config.public_baseurl) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {}
        _ => need(false, "`public_baseurl` must be an http or https URL"),
    }
    need(!config.listeners.is_empty(), "`listeners`: at least one is needed");
    let mut places = BTreeSet::new();
    for listener in &config.listeners {
        let place = listener.socket();
        need(!listener.apis.is_empty(), &format!("`listeners` {place}: `apis` is empty"));
        need(place.port() == 0 || places.insert(place), &format!("`listeners`: {place} is there twice"));
    }
    let serves = |api| config.listeners.iter().any(|listener| listener.apis.contains(&api));
    need(serves(Api::Client) || serves(Api::Federation), "`listeners`: none serves `client` or `federation`");
    need(config.process.shutdown_seconds > 0, "`process.shutdown_seconds` must be at least 1");
    need(config.process.max_connections > 0, "`process.max_connections` must be at least 1");
    need(config.process.header_timeout_seconds > 0, "`process.header_timeout_seconds` must be at least 1");
    need(config.identity.validation_hours > 0, "`identity.validation_hours` must be at least 1");
    let name = &config.identity.service_name;
    need(!name.chars().any(char::is_control), "`identity.service_name` has a control character");
    need(
        !config.client.registration.email || config.mail.is_some(),
        "`client.registration.email`: addresses cannot be validated without the section `mail`",
    );
    if let Some(mail) = &config.mail {
        need(
            mail.username.is_some() == mail.password_file.is_some(),
            "`mail`: `username` and `password_file` go together",
        );
    }
    problems
}
