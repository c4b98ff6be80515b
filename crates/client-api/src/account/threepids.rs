//! `GET /account/3pid`: the addresses of the account.

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, ThreepidInfo};
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(State(accounts): State<Accounts>, requester: Requester) -> Result<Json<Value>> {
    let threepids = accounts.threepids(requester.user()).await?;
    let shown = |info: &ThreepidInfo| {
        json!({
            "medium": info.medium, "address": info.address,
            "validated_at": info.validated, "added_at": info.added,
        })
    };
    Ok(Json(json!({ "threepids": threepids.iter().map(shown).collect::<Vec<_>>() })))
}
