//! `GET` and `POST` of the page that the link in a mail leads to: opening it changes nothing, the button confirms.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Redirect, Response},
};
use chappe_identity::{Confirmed, Identity, Language, Page, SERVICE_CONFIRM_PATH, page};
use chappe_web::Payload;
use http::StatusCode;
use serde::Deserialize;

/// The parameters of the link, which the form sends again.
#[derive(Deserialize)]
pub(crate) struct Link {
    sid: String,
    token: String,
    #[serde(default)]
    lang: Option<String>,
}

impl Link {
    fn language(&self, identity: &Identity) -> Language {
        self.lang.as_deref().and_then(Language::accepted).unwrap_or_else(|| identity.language())
    }
}

pub(crate) async fn show(State(identity): State<Identity>, Query(link): Query<Link>) -> Response {
    let language = link.language(&identity);
    match identity.pending(&link.sid, &link.token).await {
        Ok(pending) => {
            let ask = Page::Confirm {
                address: &pending.address,
                purpose: pending.purpose,
                reopens: pending.reopens,
                action: SERVICE_CONFIRM_PATH,
                sid: &link.sid,
                token: &link.token,
            };
            shown(StatusCode::OK, &ask, language, &identity)
        }
        Err(_) => failed(&identity, language),
    }
}

pub(crate) async fn confirm(
    State(identity): State<Identity>,
    form: chappe_web::Result<Payload<Link>>,
) -> Response {
    let Ok(Payload(link)) = form else { return failed(&identity, identity.language()) };
    let language = link.language(&identity);
    match identity.confirm(&link.sid, &link.token).await {
        Ok(done) => confirmed(&done, &identity, language),
        Err(_) => failed(&identity, language),
    }
}

/// The browser goes on to the client's page, which was checked when the validation began.
pub(crate) fn confirmed(done: &Confirmed, identity: &Identity, language: Language) -> Response {
    match done.next_link.as_deref() {
        Some(link) => Redirect::to(link).into_response(),
        None => shown(StatusCode::OK, &Page::Confirmed { next_link: None }, language, identity),
    }
}

pub(crate) fn failed(identity: &Identity, language: Language) -> Response {
    shown(StatusCode::BAD_REQUEST, &Page::Failed, language, identity)
}

fn shown(status: StatusCode, what: &Page<'_>, language: Language, identity: &Identity) -> Response {
    chappe_web::Page { status, html: page(what, language, &identity.service_name()) }.into_response()
}
