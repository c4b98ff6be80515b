//! `GET` and `POST` of the page that the link in a mail leads to: opening it changes nothing, the button confirms.

use axum::extract::{Query, State};
use chappe_identity::{CONFIRM_PATH, Identity, Language, Page, page};
use chappe_web::Payload;
use http::StatusCode;
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

pub(super) async fn show(State(identity): State<Identity>, Query(link): Query<Link>) -> chappe_web::Page {
    let language = link.language(&identity);
    match identity.pending(&link.sid, &link.token).await {
        Ok(pending) => {
            let ask = Page::Confirm {
                address: &pending.address,
                purpose: pending.purpose,
                reopens: pending.reopens,
                action: CONFIRM_PATH,
                sid: &link.sid,
                token: &link.token,
            };
            html(StatusCode::OK, page(&ask, language, &identity.service_name()))
        }
        Err(_) => failed(&identity, language),
    }
}

pub(super) async fn confirm(
    State(identity): State<Identity>,
    form: chappe_web::Result<Payload<Link>>,
) -> chappe_web::Page {
    let Ok(Payload(link)) = form else { return failed(&identity, identity.language()) };
    let language = link.language(&identity);
    match identity.confirm(&link.sid, &link.token).await {
        Ok(confirmed) => {
            let done = Page::Confirmed { next_link: confirmed.next_link.as_deref() };
            html(StatusCode::OK, page(&done, language, &identity.service_name()))
        }
        Err(_) => failed(&identity, language),
    }
}

fn failed(identity: &Identity, language: Language) -> chappe_web::Page {
    html(StatusCode::BAD_REQUEST, page(&Page::Failed, language, &identity.service_name()))
}

fn html(status: StatusCode, html: String) -> chappe_web::Page {
    chappe_web::Page { status, html }
}
