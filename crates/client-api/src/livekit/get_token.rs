//! `POST …/livekit/get_token`: access for a member of a slot (MSC4195).

use axum::{Json, extract::State};
use chappe_calls::Calls;
use chappe_rooms::Rooms;
use chappe_web::{Origin, Payload};
use serde_json::Value;

use super::{OfSlot, admit, give_access};
use crate::{error::Result, rates::Limits};

pub(super) async fn handler(
    State(calls): State<Option<Calls>>,
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    origin: Origin,
    Payload(body): Payload<OfSlot>,
) -> Result<Json<Value>> {
    let member = body.member.member(&body.slot_id)?;
    let room = &*body.room_id;
    let (calls, user) = admit((calls, &rooms), (&limits, origin), &body.openid_token, room).await?;
    let leave = body.delegation.leave((&calls, &rooms), &user, room).await?;
    give_access(&calls, (&user, room), member, leave).await
}
