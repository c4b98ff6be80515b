//! `GET …/renew`: renews an account, by the link of a mail or, with an access token, by the code of one.

use axum::extract::{Query, State, rejection::QueryRejection};
use chappe_accounts::{Accounts, Error as Refusal};
use chappe_identity::{Language, Renewals};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;

use super::must_be_on;
use crate::{Error, error::Result, requester::Renewing};

#[derive(Deserialize)]
pub(super) struct Parameters {
    token: String,
}

pub(super) async fn handler(
    State(renewals): State<Renewals>,
    State(accounts): State<Accounts>,
    method: Method,
    headers: HeaderMap,
    bearer: Result<Renewing, Error>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<chappe_web::Page> {
    must_be_on(&renewals)?;
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let language = accepted.and_then(Language::accepted).unwrap_or_else(|| renewals.language());
    let page = |status, renewed| chappe_web::Page { status, html: renewals.page(renewed, language) };
    // Those who look without reading the page have renewed nothing.
    let token = query.ok().filter(|_| method == Method::GET).map(|Query(said)| said.token);
    let Some(token) = token else { return Ok(page(StatusCode::BAD_REQUEST, None)) };
    let is_code = token.len() == 8 && token.bytes().all(|digit| digit.is_ascii_digit());
    let renewed = if is_code {
        let Renewing(requester) = bearer?;
        accounts.renew_by_code(requester.user(), &token).await
    } else {
        accounts.renew_by_link(&token).await
    };
    match renewed {
        Ok(renewed) => Ok(page(StatusCode::OK, Some(renewed))),
        Err(Refusal::NotFound(_) | Refusal::Deactivated) => Ok(page(StatusCode::BAD_REQUEST, None)),
        Err(error) => Err(error.into()),
    }
}
