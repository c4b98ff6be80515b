//! `POST …/admin`: says when an account ends; another period from now on unless a time is given.

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_identity::Renewals;
use chappe_web::Payload;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::must_be_on;
use crate::{error::Result, requester::Requester};

#[derive(Deserialize)]
pub(super) struct Body {
    user_id: OwnedUserId,
    /// In milliseconds since 1970.
    expiration_ts: Option<u64>,
    enable_renewal_emails: Option<bool>,
}

pub(super) async fn handler(
    State(renewals): State<Renewals>,
    State(accounts): State<Accounts>,
    requester: Requester,
    body: chappe_web::Result<Payload<Body>>,
) -> Result<Json<Value>> {
    requester.must_be_admin()?;
    must_be_on(&renewals)?;
    let Payload(body) = body?;
    let details = json!({
        "user_id": body.user_id, "expiration_ts": body.expiration_ts,
        "enable_renewal_emails": body.enable_renewal_emails,
    });
    let what = ("POST /_synapse/client/email_account_validity/admin".to_owned(), details);
    let change = accounts.say_end(&body.user_id, body.expiration_ts, body.enable_renewal_emails);
    let ends = accounts.audit().around(requester.user(), what, change).await?;
    Ok(Json(json!({ "expiration_ts": ends })))
}
