//! `tokens`: tokens for registration.

use chappe_accounts::RegistrationToken;
use serde_json::{Value, json};

use super::{Answer, Deps};
use crate::{Error, Tokens};

const HOUR_MS: u64 = 3_600_000;

pub(super) async fn run(deps: &Deps, verb: Tokens) -> Result<Answer, Error> {
    match verb {
        Tokens::Create { token, uses, hours } => {
            let expires = hours.map(|hours| deps.world.now().saturating_add(hours.saturating_mul(HOUR_MS)));
            let (token, made) = deps.accounts.create_registration_token(token, uses, expires).await?;
            Ok(Answer::line(token.clone(), data(&token, &made)))
        }
        Tokens::List => {
            let tokens = deps.accounts.registration_tokens().await?;
            let now = deps.world.now();
            let lines = tokens.iter().map(|(token, found, _)| line(token, found, now)).collect();
            let data = tokens.iter().map(|(token, found, _)| data(token, found)).collect();
            Ok(Answer { lines, data })
        }
        Tokens::Revoke { token } => {
            deps.accounts.delete_registration_token(&token).await?;
            Ok(Answer::line(format!("{token} revoked"), json!({ "token": token })))
        }
    }
}

fn line(token: &str, found: &RegistrationToken, now: u64) -> String {
    let allowed = found.uses_allowed.map_or_else(|| "any number".to_owned(), |uses| uses.to_string());
    let life = match found.expires {
        None => "for ever".to_owned(),
        Some(expires) if expires <= now => "expired".to_owned(),
        Some(expires) => format!("for {} h more", (expires - now).div_ceil(HOUR_MS)),
    };
    format!("{token:32} used {} of {allowed}, {life}", found.completed)
}

fn data(token: &str, found: &RegistrationToken) -> Value {
    json!({
        "token": token, "uses_allowed": found.uses_allowed,
        "completed": found.completed, "expires": found.expires,
    })
}
