//! `GET /_matrix/identity/v2/account`: whose the access token is.

use axum::Json;
use serde_json::{Value, json};

use crate::requester::Member;

pub(crate) async fn handler(member: Member) -> Json<Value> {
    Json(json!({ "user_id": member.user }))
}
