//! `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`: a local user's invite of an address, bound meanwhile.

use axum::extract::State;
use chappe_rooms::BoundInvite;
use chappe_web::{Error, Ruma};
use ruma::{
    api::federation::thirdparty::exchange_invite::v1::{Request, Response},
    events::StateEventType,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Federation, Origin, refusal::Answer};

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
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    federation.gate(&origin, &request.room_id).await?;
    let content: Content = serde_json::from_str(request.content.json().get())
        .map_err(|error| Error::bad_json(error.to_string()))?;
    if request.kind != StateEventType::RoomMember || content.membership != "invite" {
        return Err(Error::bad_json("An invite is needed").into());
    }
    let bound = BoundInvite {
        sender: request.sender,
        invited: request.state_key,
        signed: content.third_party_invite.signed,
    };
    federation.rooms().exchange_invite(&request.room_id, bound).await?;
    Ok(Ruma(Response::new()))
}
