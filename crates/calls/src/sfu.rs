//! What this server asks of the SFU.

use std::time::Duration;

use bytes::Bytes;
use chappe_world::{Destination, Limits, Request, World};
use http::header;
use serde_json::json;

use crate::{Config, Error};

/// What an answer may cost.
const LIMITS: Limits = Limits { max_bytes: 64 << 10, deadline: Duration::from_secs(10) };
/// Seconds for which a room waits for somebody to come in.
const EMPTY_SECONDS: u32 = 300;
/// Seconds for which a room stays when everybody has left.
const LEFT_SECONDS: u32 = 20;

/// Makes a room; one that is there stays as it is (Twirp, `livekit.RoomService/CreateRoom`).
pub(crate) async fn create_room(
    world: &World,
    config: &Config,
    token: &str,
    room: &str,
) -> Result<(), Error> {
    let body = json!({ "name": room, "empty_timeout": EMPTY_SECONDS, "departure_timeout": LEFT_SECONDS });
    let http = http::Request::post(format!("{}/twirp/livekit.RoomService/CreateRoom", config.api()))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body.to_string()));
    let http = http.map_err(|error| Error::Sfu(error.to_string()))?;
    let destination = Destination::Url { redirects: 0 };
    let answer = world.send(Request { destination, http, limits: LIMITS }).await;
    let answer = answer.map_err(|error| Error::Sfu(error.to_string()))?;
    if answer.status().is_success() { Ok(()) } else { Err(Error::Sfu(answer.status().to_string())) }
}
