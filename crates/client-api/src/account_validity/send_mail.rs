//! `POST …/send_mail`: has the requester mailed what renews the account; it may have ended.

use axum::{Json, extract::State};
use chappe_identity::Renewals;
use serde_json::{Value, json};

use super::must_be_on;
use crate::{error::Result, requester::Renewing};

pub(super) async fn handler(
    State(renewals): State<Renewals>,
    Renewing(requester): Renewing,
) -> Result<Json<Value>> {
    must_be_on(&renewals)?;
    renewals.send_mail(requester.user()).await?;
    Ok(Json(json!({})))
}
