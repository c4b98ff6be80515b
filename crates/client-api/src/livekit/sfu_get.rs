//! `POST …/livekit/sfu/get`: access for a device, as older clients ask for it.

use axum::{Json, extract::State};
use chappe_calls::{Calls, Member};
use chappe_rooms::Rooms;
use chappe_web::{Origin, Payload};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::Value;

use super::{Delegation, OpenIdToken, admit, give_access};
use crate::{error::Result, rates::Limits};

#[derive(Deserialize)]
pub(super) struct Body {
    room: OwnedRoomId,
    openid_token: OpenIdToken,
    device_id: String,
    #[serde(flatten)]
    delegation: Delegation,
}

pub(super) async fn handler(
    State(calls): State<Option<Calls>>,
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    origin: Origin,
    Payload(body): Payload<Body>,
) -> Result<Json<Value>> {
    if body.device_id.is_empty() || body.device_id.contains(':') {
        return Err(chappe_web::Error::bad_json("`device_id` is empty or has a colon").into());
    }
    let room = &*body.room;
    let (calls, user) = admit((calls, &rooms), (&limits, origin), &body.openid_token, room).await?;
    let leave = body.delegation.leave((&calls, &rooms), &user, room).await?;
    give_access(&calls, (&user, room), Member::Device(&body.device_id), leave).await
}
