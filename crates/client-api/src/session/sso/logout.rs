//! `GET` of the addresses where a browser ends its session with an identity provider, and comes back from that.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_identity::{Identity, Sso, SsoError, SsoPage};
use chappe_web::{Arguments, Origin};
use http::{HeaderMap, StatusCode};

use super::{cookie, depart, failed, html, language};
use crate::{error::Result, rates::Limits};

pub(super) async fn begin(
    State(sso): State<Sso>,
    State(identity): State<Identity>,
    State(limits): State<Limits>,
    (origin, headers): (Origin, HeaderMap),
    Arguments(provider): Arguments<String>,
) -> Result<Response> {
    limits.ip("sso", origin, |rates| rates.sso)?;
    let kept = sso.session_cookie_name(&provider);
    match sso.leave(&provider, cookie(&headers, &kept)).await {
        Ok(departure) => Ok(depart(&departure)),
        Err(SsoError::NoProvider) => Err(chappe_web::Error::not_found("No sessions are ended there").into()),
        Err(error) => Ok(failed(&identity, language(&identity, &headers), &error).into_response()),
    }
}

pub(super) async fn end(State(identity): State<Identity>, headers: HeaderMap) -> chappe_web::Page {
    html(&identity, language(&identity, &headers), StatusCode::OK, &SsoPage::LoggedOut)
}
