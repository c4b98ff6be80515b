//! Logging in by an identity provider: there, back again, and the same to confirm an operation.

mod approve;
mod callback;
mod fallback;
mod logout;
mod redirect;

use axum::response::{IntoResponse, Response};
use chappe_identity::{
    Cookie, Departure, Identity, Language, SSO_APPROVE_PATH, SSO_CALLBACK_PATH, SSO_LOGGED_OUT_PATH,
    SSO_LOGOUT_PATH, SsoError, SsoPage, sso_page,
};
use chappe_web::{Auth, Page, Routes};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use ruma::api::client::{session as api, uiaa};

use crate::Api;

pub(super) fn routes() -> Routes<Api> {
    let old = "/_matrix/client/r0/login/sso/redirect/{idp_id}";
    Routes::new()
        .on::<api::sso_login::v3::Request, _>(redirect::any)
        .on::<api::sso_login_with_provider::v3::Request, _>(redirect::one)
        .at(&Method::GET, old, Auth::None, redirect::one)
        .on::<uiaa::get_uiaa_fallback_page::v3::Request, _>(fallback::handler)
        .at(&Method::GET, SSO_CALLBACK_PATH, Auth::None, callback::handler)
        .at(&Method::GET, &format!("{SSO_LOGOUT_PATH}/{{provider}}"), Auth::None, logout::begin)
        .at(&Method::GET, SSO_LOGGED_OUT_PATH, Auth::None, logout::end)
        .at(&Method::POST, SSO_APPROVE_PATH, Auth::None, approve::handler)
}

/// The language that a browser asks for.
fn language(identity: &Identity, headers: &HeaderMap) -> Language {
    let said = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    said.and_then(Language::accepted).unwrap_or_else(|| identity.language())
}

fn html(identity: &Identity, language: Language, status: StatusCode, page: &SsoPage<'_>) -> Page {
    Page { status, html: sso_page(page, language, &identity.service_name()) }
}

/// The page that says why nobody was let in.
fn failed(identity: &Identity, language: Language, error: &SsoError) -> Page {
    let status = match error {
        SsoError::Ended | SsoError::TooLong | SsoError::Client(_) => StatusCode::BAD_REQUEST,
        SsoError::NoProvider => StatusCode::NOT_FOUND,
        SsoError::Provider(_) => StatusCode::BAD_GATEWAY,
        SsoError::Accounts(chappe_accounts::Error::Store(_))
        | SsoError::Identity(chappe_identity::Error::Store(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::FORBIDDEN,
    };
    tracing::info!(%error, "nobody was let in by an identity provider");
    html(identity, language, status, &SsoPage::Failed(error))
}

/// Sends the browser to the provider, with what it keeps meanwhile.
fn depart(departure: &Departure) -> Response {
    let mut response = away(&departure.location);
    set_cookie(&mut response, &departure.cookie);
    response
}

/// Sends the browser somewhere. Nothing on the way is kept, or told to where it goes.
fn away(location: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(location) else {
        return chappe_web::Error::internal("an address cannot be sent").into_response();
    };
    let mut response = StatusCode::FOUND.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn set_cookie(response: &mut Response, cookie: &Cookie) {
    if let Ok(value) = HeaderValue::from_str(&cookie.header()) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The cookie of that name; a browser sends several in one header.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}
