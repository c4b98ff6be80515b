//! `GET /login/sso/redirect` and `GET /login/sso/redirect/{idpId}`: to the identity provider.

use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use chappe_identity::{ClientUrl, Email, Errand, Identity, Manner, Sso, SsoError, SsoPage};
use chappe_web::{Origin, Ruma};
use http::{HeaderMap, StatusCode};
use ruma::api::client::session::{sso_login, sso_login_with_provider};
use url::form_urlencoded;

use super::{depart, failed, html, language};
use crate::{error::Result, rates::Limits};

/// Without a provider: to the only one, or to a page with all of them.
pub(super) async fn any(
    State(sso): State<Sso>,
    State(identity): State<Identity>,
    State(limits): State<Limits>,
    (origin, RawQuery(query), headers): (Origin, RawQuery, HeaderMap),
    Ruma(request): Ruma<sso_login::v3::Request>,
) -> Result<Response> {
    limits.ip("sso", origin, |rates| rates.sso)?;
    let client = client(&request.redirect_url)?;
    let query = query.unwrap_or_default();
    let ids: Vec<(&str, &str)> = sso.providers().map(|one| (one.id.as_str(), one.name.as_str())).collect();
    match &*ids {
        [] => Err(chappe_web::Error::unrecognized().into()),
        [(id, _)] => Ok(go(&sso, &identity, (id, &client), &query, &headers).await),
        _ => {
            let link = |id: &str| format!("/_matrix/client/v3/login/sso/redirect/{id}?{query}");
            let links: Vec<_> = ids.iter().map(|(id, name)| ((*name).to_owned(), link(id))).collect();
            let language = language(&identity, &headers);
            Ok(html(&identity, language, StatusCode::OK, &SsoPage::Choose(&links)).into_response())
        }
    }
}

pub(super) async fn one(
    State(sso): State<Sso>,
    State(identity): State<Identity>,
    State(limits): State<Limits>,
    (origin, RawQuery(query), headers): (Origin, RawQuery, HeaderMap),
    Ruma(request): Ruma<sso_login_with_provider::v3::Request>,
) -> Result<Response> {
    limits.ip("sso", origin, |rates| rates.sso)?;
    if !sso.providers().any(|provider| provider.id == request.idp_id) {
        return Err(chappe_web::Error::not_found("No such identity provider").into());
    }
    let client = client(&request.redirect_url)?;
    let query = query.unwrap_or_default();
    Ok(go(&sso, &identity, (&request.idp_id, &client), &query, &headers).await)
}

fn client(text: &str) -> Result<ClientUrl> {
    ClientUrl::parse(text).map_err(|error| chappe_web::Error::invalid_param(error.to_string()).into())
}

async fn go(
    sso: &Sso,
    identity: &Identity,
    (provider, client): (&str, &ClientUrl),
    query: &str,
    headers: &HeaderMap,
) -> Response {
    let errand = Errand::LogIn { client: client.to_string() };
    match sso.depart(provider, errand, &manner(query)).await {
        Ok(departure) => depart(&departure),
        Err(error @ SsoError::Provider(_)) => {
            failed(identity, language(identity, headers), &error).into_response()
        }
        Err(error) => chappe_web::Error::internal(error).into_response(),
    }
}

/// Parameters that say how, under the names that clients have for them.
fn manner(query: &str) -> Manner {
    let mut manner = Manner::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "action" | "org.matrix.msc3824.action" => {
                manner.register = value.eq_ignore_ascii_case("register");
            }
            "login_hint" => manner.login_hint = Email::parse(&value).ok(),
            _ => {}
        }
    }
    manner
}
