//! `POST` of the page that asks for an approval: the stage `m.login.sso` is completed.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_identity::{Identity, Language, Sso, SsoError, SsoPage};
use chappe_web::{Origin, Payload};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::{failed, html, language};
use crate::{error::Result, rates::Limits};

/// Tells the client that opened the page (client-server API, "Fallback").
const DONE: &str = "if (window.onAuthDone) { window.onAuthDone(); } else if (window.opener && window.opener.postMessage) \
                    { window.opener.postMessage(\"authDone\", \"*\"); }";

/// What the page sends.
#[derive(Deserialize)]
pub(super) struct Form {
    ticket: String,
    #[serde(default)]
    lang: Option<String>,
}

pub(super) async fn handler(
    State(sso): State<Sso>,
    State(identity): State<Identity>,
    State(limits): State<Limits>,
    (origin, headers): (Origin, HeaderMap),
    form: chappe_web::Result<Payload<Form>>,
) -> Result<Response> {
    limits.ip("sso", origin, |rates| rates.sso)?;
    let wanted = language(&identity, &headers);
    let Ok(Payload(form)) = form else {
        return Ok(failed(&identity, wanted, &SsoError::Ended).into_response());
    };
    let language = form.lang.as_deref().and_then(Language::accepted).unwrap_or(wanted);
    match sso.approve(&form.ticket) {
        Ok(()) => {
            let page = html(&identity, language, StatusCode::OK, &SsoPage::Approved);
            Ok(page.with_script(DONE))
        }
        Err(error) => Ok(failed(&identity, language, &error).into_response()),
    }
}
