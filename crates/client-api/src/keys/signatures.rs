//! `POST /keys/signatures/upload`: signatures of devices and of other users' keys.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::{
    OwnedUserId,
    api::client::keys::upload_signatures::v3::{Request, SignedKeys},
};
use serde_json::{Value, json, value::RawValue};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    let by_id = |keys: &SignedKeys| -> BTreeMap<String, Box<RawValue>> {
        keys.iter().map(|(id, key)| (id.to_owned(), key.to_owned())).collect()
    };
    let signed: BTreeMap<OwnedUserId, _> =
        request.signed_keys.iter().map(|(user, keys)| (user.clone(), by_id(keys))).collect();
    let refused = accounts.upload_signatures(requester.user(), &signed).await?;
    let failures: BTreeMap<_, BTreeMap<_, _>> = refused
        .into_iter()
        .map(|(user, keys)| {
            let failure = |error: &str| json!({ "errcode": "M_INVALID_SIGNATURE", "error": error });
            (user, keys.into_iter().map(|(id, error)| (id, failure(error))).collect())
        })
        .collect();
    Ok(Json(json!({ "failures": failures })))
}
