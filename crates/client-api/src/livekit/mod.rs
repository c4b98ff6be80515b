//! `/_matrix/client/unstable/chappe/livekit`: access to a LiveKit server for calls of many people (MSC4195), for users of every
//! server. They show no access token of this server but an OpenID token.

mod delegate_delayed_leave;
mod get_token;
mod sfu_get;

use std::time::Duration;

use axum::Json;
use chappe_calls::{Access, Calls, Leave, Member, Proof};
use chappe_rooms::Rooms;
use chappe_web::{Auth, Origin, Routes};
use http::Method;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Api, error::Result, rates::Limits};

/// Where the endpoints are; clients are told this with the base URL before it.
pub(crate) const PATH: &str = "/_matrix/client/unstable/chappe/livekit";

pub(crate) fn routes() -> Routes<Api> {
    let delegate = format!("{PATH}/delegate_delayed_leave");
    Routes::new()
        .at(&Method::POST, &format!("{PATH}/get_token"), Auth::None, get_token::handler)
        .at(&Method::POST, &format!("{PATH}/sfu/get"), Auth::None, sfu_get::handler)
        .at(&Method::POST, &delegate, Auth::None, delegate_delayed_leave::handler)
}

#[derive(Deserialize)]
struct OpenIdToken {
    access_token: String,
    matrix_server_name: OwnedServerName,
}

/// The delayed leave that a client wants looked after, if it does.
#[derive(Deserialize)]
struct Delegation {
    delay_id: Option<String>,
    delay_timeout: Option<Value>,
}

/// A leave to be looked after, or why this server does not.
type Wanted = std::result::Result<Leave, chappe_calls::Error>;

impl Delegation {
    /// The event, where one is said: one of the user in the room that still waits. For how long this server knows better.
    async fn leave(
        &self,
        (calls, rooms): (&Calls, &Rooms),
        user: &UserId,
        room: &RoomId,
    ) -> Result<Option<Wanted>> {
        let id = match (&self.delay_id, &self.delay_timeout) {
            (None, None) => return Ok(None),
            (Some(id), Some(timeout)) if is_time(timeout) => id,
            _ => {
                let error = "`delay_id` or `delay_timeout` is missing or wrong";
                return Err(chappe_web::Error::bad_json(error).into());
            }
        };
        if let Err(error) = calls.check_local(user) {
            return Ok(Some(Err(error)));
        }
        match rooms.delayed(user, id).await {
            Ok(delayed) if delayed.room == room && delayed.end.is_none() => {
                Ok(Some(Leave::new(id, Duration::from_millis(delayed.delay_ms))))
            }
            Ok(_) | Err(chappe_rooms::Error::NotFound(_)) => {
                Err(chappe_web::Error::bad_json("No such delayed event waits in the room").into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether this is a number of milliseconds, as a text (MSC4195) or as a number (older clients).
fn is_time(value: &Value) -> bool {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.is_some_and(|number| number > 0)
}

/// What is asked for a member of a slot (MSC4195).
#[derive(Deserialize)]
struct OfSlot {
    room_id: OwnedRoomId,
    slot_id: String,
    openid_token: OpenIdToken,
    member: Claimed,
    #[serde(flatten)]
    delegation: Delegation,
}

/// A member of a slot, as the client says it.
#[derive(Deserialize)]
struct Claimed {
    id: String,
    #[serde(rename = "claimed_user_id")]
    user: OwnedUserId,
    #[serde(rename = "claimed_device_id")]
    device: String,
}

impl Claimed {
    fn member<'a>(&'a self, slot: &'a str) -> Result<Member<'a>> {
        let Self { id, user, device } = self;
        if [slot, id, device].iter().any(|field| field.is_empty()) {
            return Err(chappe_web::Error::bad_json("`slot_id`, `member.id` or the device is empty").into());
        }
        Ok(Member::Slot { slot, user, device, id })
    }
}

/// Finds out who asks, and that they are in the room.
async fn admit(
    (calls, rooms): (Option<Calls>, &Rooms),
    (limits, origin): (&Limits, Origin),
    openid: &OpenIdToken,
    room: &RoomId,
) -> Result<(Calls, OwnedUserId)> {
    let calls = calls.ok_or_else(chappe_web::Error::unrecognized)?;
    limits.ip("call", origin, |rates| rates.call)?;
    let proof = Proof { server: &openid.matrix_server_name, token: &openid.access_token };
    let user = calls.prove(proof).await?;
    rooms.check_joined(&user, room).await?;
    Ok((calls, user))
}

/// Gives access, and looks after a leave where that is wanted and possible: where it is not, nobody misses the call for it.
async fn give_access(
    calls: &Calls,
    (user, room): (&UserId, &RoomId),
    member: Member<'_>,
    leave: Option<Wanted>,
) -> Result<Json<Value>> {
    let Access { url, jwt } = calls.access(user, room.as_str(), member).await?;
    match leave {
        Some(Ok(leave)) => calls.look_after(user, room.as_str(), member, leave)?,
        Some(Err(error)) => tracing::debug!(%user, %error, "a delayed leave is not looked after"),
        None => {}
    }
    Ok(Json(json!({ "url": url, "jwt": jwt })))
}
