//! `/_matrix/client/unstable/chappe/livekit`: access to a LiveKit server for calls of many people (MSC4195), for users of every
//! server. They show no access token of this server but an OpenID token.

mod get_token;
mod sfu_get;

use axum::Json;
use chappe_calls::{Access, Calls, Member, Proof};
use chappe_rooms::Rooms;
use chappe_web::{Auth, Origin, Routes};
use http::Method;
use ruma::{OwnedServerName, RoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Api, error::Result, rates::Limits};

/// Where the endpoints are; clients are told this with the base URL before it.
pub(crate) const PATH: &str = "/_matrix/client/unstable/chappe/livekit";

pub(crate) fn routes() -> Routes<Api> {
    Routes::new().at(&Method::POST, &format!("{PATH}/get_token"), Auth::None, get_token::handler).at(
        &Method::POST,
        &format!("{PATH}/sfu/get"),
        Auth::None,
        sfu_get::handler,
    )
}

#[derive(Deserialize)]
struct OpenIdToken {
    access_token: String,
    matrix_server_name: OwnedServerName,
}

/// What both endpoints do. `delayed` is the event that the client wants somebody else to look after.
async fn answer(
    (calls, rooms): (Option<Calls>, Rooms),
    (limits, origin): (Limits, Origin),
    openid: &OpenIdToken,
    (room, member): (&RoomId, Member<'_>),
    delayed: Option<&Value>,
) -> Result<Json<Value>> {
    let calls = calls.ok_or_else(chappe_web::Error::unrecognized)?;
    limits.ip("call", origin, |rates| rates.call)?;
    if delayed.is_some_and(|delayed| !delayed.is_null()) {
        // A client that was not told would stop looking after it.
        return Err(chappe_web::Error::bad_json("Delayed events are not looked after here").into());
    }
    let proof = Proof { server: &openid.matrix_server_name, token: &openid.access_token };
    let user = calls.prove(proof).await?;
    rooms.check_joined(&user, room).await?;
    let Access { url, jwt } = calls.access(&user, room.as_str(), member).await?;
    Ok(Json(json!({ "url": url, "jwt": jwt })))
}
