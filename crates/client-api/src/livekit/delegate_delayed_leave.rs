//! `POST …/livekit/delegate_delayed_leave`: this server looks after the delayed leave of a member of a slot (MSC4195).

use axum::{Json, extract::State};
use chappe_calls::Calls;
use chappe_rooms::Rooms;
use chappe_web::{Origin, Payload};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Claimed, Delegation, OpenIdToken, admit};
use crate::{error::Result, rates::Limits};

#[derive(Deserialize)]
pub(super) struct Body {
    room_id: OwnedRoomId,
    slot_id: String,
    openid_token: OpenIdToken,
    member: Claimed,
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
    let member = body.member.member(&body.slot_id)?;
    let room = &*body.room_id;
    let (calls, user) = admit((calls, &rooms), (&limits, origin), &body.openid_token, room).await?;
    let leave = body.delegation.leave((&calls, &rooms), &user, room).await?;
    let leave = leave.ok_or_else(|| chappe_web::Error::missing_param("`delay_id` is missing"))??;
    calls.look_after(&user, room.as_str(), member, leave)?;
    Ok(Json(json!({})))
}
