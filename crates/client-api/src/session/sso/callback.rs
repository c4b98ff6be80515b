//! `GET` of the address that identity providers send browsers back to.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_accounts::Accounts;
use chappe_identity::{Arrival, ClientUrl, Cookie, Identity, Language, Return, Sso, SsoError, SsoPage};
use chappe_web::{Origin, Parameters};
use http::{HeaderMap, StatusCode};
use ruma::UserId;

use super::{away, cookie, failed, html, language, set_cookie};
use crate::{error::Result, rates::Limits};

pub(super) async fn handler(
    State(sso): State<Sso>,
    State(accounts): State<Accounts>,
    State(identity): State<Identity>,
    State(limits): State<Limits>,
    (origin, headers): (Origin, HeaderMap),
    back: chappe_web::Result<Parameters<Return>>,
) -> Result<Response> {
    limits.ip("sso", origin, |rates| rates.sso)?;
    let language = language(&identity, &headers);
    let Ok(Parameters(back)) = back else {
        return Ok(failed(&identity, language, &SsoError::Ended).into_response());
    };
    let name = sso.cookie_name(&back.state);
    let arrival = sso.arrive(&back, cookie(&headers, &name)).await;
    let gone = Cookie::gone(name);
    let mut response = match arrival {
        Ok(Arrival::LoggedIn { user, client, trusted, session }) => {
            let token = accounts.sign_on_token(&user).await?;
            let link = client.with_token(&token);
            let mut response =
                if trusted { away(&link) } else { ask(&identity, language, (&user, &client, &link)) };
            if let Some(session) = &session {
                set_cookie(&mut response, session);
            }
            response
        }
        Ok(Arrival::Confirmed { session, ticket }) => {
            let (user, operation) = (session.user.as_str(), session.operation.as_str());
            let page = SsoPage::Approve { user, operation, ticket: &ticket };
            html(&identity, language, StatusCode::OK, &page).into_response()
        }
        Ok(Arrival::Browsing { page, pass, session }) => {
            let mut response = away(&page);
            set_cookie(&mut response, &pass);
            if let Some(session) = &session {
                set_cookie(&mut response, session);
            }
            response
        }
        Err(error) => failed(&identity, language, &error).into_response(),
    };
    set_cookie(&mut response, &gone);
    Ok(response)
}

/// Nobody has vouched for this client: the person does, by going on.
fn ask(
    identity: &Identity,
    language: Language,
    (user, client, link): (&UserId, &ClientUrl, &str),
) -> Response {
    let page = SsoPage::GoOn { user: user.as_str(), client, link };
    html(identity, language, StatusCode::OK, &page).into_response()
}
