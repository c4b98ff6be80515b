//! `POST /_matrix/identity/v2/store-invite`: an invitation waits for whoever will have an address.

use axum::{Json, extract::State};
use chappe_identity::{IdentityService, Invitation};
use chappe_web::{Error, Payload};
use http::StatusCode;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{error::Result, requester::Member, v1::email};

/// What a mail may say of room and sender; nothing else is kept of a request.
const TOLD: [&str; 7] = [
    "room_alias",
    "room_avatar_url",
    "room_join_rules",
    "room_name",
    "room_type",
    "sender_avatar_url",
    "sender_display_name",
];
/// Longest of those, in bytes.
const MAX_TOLD: usize = 1000;

#[derive(Deserialize)]
pub(crate) struct Body {
    medium: String,
    address: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    #[serde(flatten)]
    told: Map<String, Value>,
}

pub(crate) async fn handler(
    State(service): State<IdentityService>,
    member: Member,
    Payload(body): Payload<Body>,
) -> Result<Json<Value>> {
    if body.sender != member.user {
        let error = "Invitations are sent in one's own name";
        return Err(Error::new(StatusCode::FORBIDDEN, "M_UNAUTHORIZED", error).into());
    }
    let address = email(&body.medium, &body.address)?;
    let short = |value: &Value| value.as_str().is_some_and(|text| text.len() <= MAX_TOLD);
    let told = body.told.into_iter().filter(|(name, value)| TOLD.contains(&name.as_str()) && short(value));
    let invitation =
        Invitation { address, room: body.room_id, sender: body.sender, told: told.collect(), language: None };
    let stored = service.store_invite(invitation).await?;
    let own = stored.public_keys.first().map(|key| key.public_key.clone());
    Ok(Json(json!({
        "token": stored.token, "public_keys": stored.public_keys, "public_key": own,
        "display_name": stored.display_name,
    })))
}
