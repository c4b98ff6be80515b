//! What this server asks of the SFU.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use chappe_world::{Destination, Limits, Request, World};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Config, Error};

/// What an answer may cost: there may be hundreds in a call, each with their tracks.
const LIMITS: Limits = Limits { max_bytes: 8 << 20, deadline: Duration::from_secs(10) };
/// Seconds for which a room waits for somebody to come in.
const EMPTY_SECONDS: u32 = 300;
/// Seconds for which a room stays when everybody has left.
const LEFT_SECONDS: u32 = 20;

/// Makes a room; one that is there stays as it is (`livekit.RoomService/CreateRoom`).
pub(crate) async fn create_room(
    world: &World,
    config: &Config,
    token: &str,
    room: &str,
) -> Result<(), Error> {
    let body = json!({ "name": room, "empty_timeout": EMPTY_SECONDS, "departure_timeout": LEFT_SECONDS });
    let answer = ask(world, config, token, "CreateRoom", body).await?;
    if answer.status().is_success() { Ok(()) } else { Err(Error::Sfu(answer.status().to_string())) }
}

/// Who is in a room, by identity; nobody if there is no such room (`livekit.RoomService/ListParticipants`).
pub(crate) async fn participants(
    world: &World,
    config: &Config,
    token: &str,
    room: &str,
) -> Result<BTreeSet<String>, Error> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        participants: Vec<Participant>,
    }
    #[derive(Deserialize)]
    struct Participant {
        identity: String,
        #[serde(default)]
        state: String,
    }
    let answer = ask(world, config, token, "ListParticipants", json!({ "room": room })).await?;
    let status = answer.status();
    let said: Option<Value> = serde_json::from_slice(answer.body()).ok();
    if status == StatusCode::NOT_FOUND && said.as_ref().is_some_and(|said| said["code"] == "not_found") {
        return Ok(BTreeSet::new());
    }
    let said = said.filter(|_| status.is_success()).ok_or_else(|| Error::Sfu(status.to_string()))?;
    let Answer { participants } =
        serde_json::from_value(said).map_err(|error| Error::Sfu(error.to_string()))?;
    let there = participants.into_iter().filter(|one| one.state != "DISCONNECTED");
    Ok(there.map(|one| one.identity).collect())
}

/// Calls a procedure (Twirp).
async fn ask(
    world: &World,
    config: &Config,
    token: &str,
    procedure: &str,
    body: Value,
) -> Result<http::Response<Bytes>, Error> {
    let http = http::Request::post(format!("{}/twirp/livekit.RoomService/{procedure}", config.api()))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body.to_string()));
    let http = http.map_err(|error| Error::Sfu(error.to_string()))?;
    let destination = Destination::Url { redirects: 0 };
    let answer = world.send(Request { destination, http, limits: LIMITS }).await;
    answer.map_err(|error| Error::Sfu(error.to_string()))
}
