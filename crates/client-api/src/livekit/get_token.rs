//! `POST …/livekit/get_token`: access for a member of a slot (MSC4195).

use axum::{Json, extract::State};
use chappe_calls::{Calls, Member};
use chappe_rooms::Rooms;
use chappe_web::{Origin, Payload};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::Value;

use super::{OpenIdToken, answer};
use crate::{error::Result, rates::Limits};

#[derive(Deserialize)]
pub(super) struct Body {
    room_id: OwnedRoomId,
    slot_id: String,
    openid_token: OpenIdToken,
    member: Claimed,
    delay_id: Option<Value>,
}

#[derive(Deserialize)]
struct Claimed {
    id: String,
    #[serde(rename = "claimed_user_id")]
    user: OwnedUserId,
    #[serde(rename = "claimed_device_id")]
    device: String,
}

pub(super) async fn handler(
    State(calls): State<Option<Calls>>,
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    origin: Origin,
    Payload(body): Payload<Body>,
) -> Result<Json<Value>> {
    let Claimed { id, user, device } = &body.member;
    if [&body.slot_id, id, device].iter().any(|field| field.is_empty()) {
        return Err(chappe_web::Error::bad_json("`slot_id`, `member.id` or the device is empty").into());
    }
    let member = Member::Slot { slot: &body.slot_id, user, device, id };
    let asked = (&*body.room_id, member);
    answer((calls, rooms), (limits, origin), &body.openid_token, asked, body.delay_id.as_ref()).await
}
