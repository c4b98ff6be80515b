//! `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`: a local user's invite of an address, bound meanwhile.

use axum::extract::State;
use chappe_rooms::BoundInvite;
use chappe_web::{Arguments, Error, Ruma};
use ruma::{OwnedRoomId, OwnedUserId, api::federation::thirdparty::exchange_invite::v1::Response};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Federation, auth::SignedJson, refusal::Answer};

/// What is sent of the invite.
#[derive(Deserialize)]
pub(in crate::routes) struct Invite {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
    third_party_invite: ThirdPartyInvite,
}

#[derive(Deserialize)]
struct ThirdPartyInvite {
    signed: Map<String, Value>,
}

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Arguments(room): Arguments<OwnedRoomId>,
    SignedJson { origin, body }: SignedJson<Invite>,
) -> Answer<Response> {
    federation.gate(&origin, &room).await?;
    let Invite { kind, room_id, sender, state_key: invited, content } = body;
    if kind != "m.room.member" || content.membership != "invite" {
        return Err(Error::bad_json("An invite is needed").into());
    }
    if room_id != room {
        return Err(Error::invalid_param("The invite is to another room than the path says").into());
    }
    let bound = BoundInvite { sender, invited, signed: content.third_party_invite.signed };
    federation.rooms().exchange_invite(&room, bound).await?;
    Ok(Ruma(Response::new()))
}
