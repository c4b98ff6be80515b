//! `GET` and `POST` of the page that the link in a mail leads to: opening it changes nothing, the button confirms.

use axum::{
    body::Body,
    extract::{Query, Request, State},
    response::{Html, IntoResponse, Response},
};
use chappe_identity::{CONFIRM_PATH, Identity, Language, Page, page};
use chappe_web::body_bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;

/// The parameters of the link, which the form sends again.
#[derive(Deserialize)]
pub(super) struct Link {
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

pub(super) async fn show(State(identity): State<Identity>, Query(link): Query<Link>) -> Response {
    let language = link.language(&identity);
    match identity.pending(&link.sid, &link.token).await {
        Ok(pending) => {
            let ask = Page::Confirm {
                address: &pending.address,
                purpose: pending.purpose,
                action: CONFIRM_PATH,
                sid: &link.sid,
                token: &link.token,
            };
            html(StatusCode::OK, page(&ask, language, identity.service_name()))
        }
        Err(_) => failed(&identity, language),
    }
}

pub(super) async fn confirm(State(identity): State<Identity>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(link) = form(&parts, body).await else { return failed(&identity, identity.language()) };
    let language = link.language(&identity);
    match identity.confirm(&link.sid, &link.token).await {
        Ok(confirmed) => {
            let done = Page::Confirmed { next_link: confirmed.next_link.as_deref() };
            html(StatusCode::OK, page(&done, language, identity.service_name()))
        }
        Err(_) => failed(&identity, language),
    }
}

/// The fields of a form, which are written as those of a query are.
async fn form(parts: &http::request::Parts, body: Body) -> Option<Link> {
    let bytes = body_bytes(parts, body).await.ok()?;
    let uri: Uri = format!("/?{}", std::str::from_utf8(&bytes).ok()?).parse().ok()?;
    Query::try_from_uri(&uri).ok().map(|Query(link)| link)
}

fn failed(identity: &Identity, language: Language) -> Response {
    html(StatusCode::BAD_REQUEST, page(&Page::Failed, language, identity.service_name()))
}

fn html(status: StatusCode, text: String) -> Response {
    let mut response = (status, Html(text)).into_response();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
