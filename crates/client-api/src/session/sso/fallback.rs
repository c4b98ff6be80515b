//! `GET /auth/m.login.sso/fallback/web`: to the identity provider, to prove once more who one is (client-server API,
//! "SSO during User-Interactive Authentication"). What is confirmed is shown afterwards, to whoever proved it.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_accounts::Accounts;
use chappe_identity::{Errand, Identity, Manner, Sso, SsoError, SsoPage};
use chappe_web::{Origin, Parameters, Ruma};
use http::{HeaderMap, StatusCode};
use ruma::api::client::uiaa::{AuthType, get_uiaa_fallback_page::v3::Request};
use serde::Deserialize;
use url::form_urlencoded;

use super::{depart, failed, html, language};
use crate::{error::Result, rates::Limits};

/// Which provider, where there are several.
#[derive(Deserialize)]
pub(super) struct Choice {
    #[serde(default)]
    provider: Option<String>,
}

#[expect(clippy::too_many_arguments, reason = "extractors, one by one")]
pub(super) async fn handler(
    State(sso): State<Sso>,
    State(accounts): State<Accounts>,
    State(identity): State<Identity>,
    State(limits): State<Limits>,
    (origin, headers): (Origin, HeaderMap),
    Parameters(choice): Parameters<Choice>,
    Ruma(request): Ruma<Request>,
) -> Result<Response> {
    limits.ip("sso", origin, |rates| rates.sso)?;
    if request.auth_type != AuthType::Sso || !sso.is_on() {
        return Err(chappe_web::Error::unrecognized().into());
    }
    let language = language(&identity, &headers);
    let Some(session) = accounts.uia_session(&request.session) else {
        return Ok(failed(&identity, language, &SsoError::Ended).into_response());
    };
    let providers = sso.providers_of(&session.user).await?;
    let chosen = providers.iter().find(|provider| choice.provider.as_deref() == Some(&*provider.id));
    let provider = match (chosen, &*providers) {
        (Some(provider), _) | (None, [provider]) => provider,
        (None, []) => return Ok(failed(&identity, language, &SsoError::NotLinked).into_response()),
        _ => {
            let query = |id: &str| {
                let mut query = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
                query.append_pair("session", &request.session).append_pair("provider", id).finish()
            };
            let links: Vec<_> = providers.iter().map(|one| (one.name.clone(), query(&one.id))).collect();
            return Ok(html(&identity, language, StatusCode::OK, &SsoPage::Choose(&links)).into_response());
        }
    };
    let errand = Errand::Confirm { session: request.session };
    match sso.depart(&provider.id, errand, &Manner::default()).await {
        Ok(departure) => Ok(depart(&departure)),
        Err(error) => Ok(failed(&identity, language, &error).into_response()),
    }
}
