//! `PUT` and `GET /presence/{userId}/status`: how somebody is.

use axum::extract::State;
use chappe_delivery::{Delivery, Presence};
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use chappe_world::World;
use ruma::{
    api::client::presence::{get_presence, set_presence},
    presence::PresenceState,
};

use crate::{error::Result, rates::Limits, requester::Requester};

/// Bytes of a status message: everybody who shares a room gets it.
const LONGEST_STATUS: usize = 1_024;

pub(super) async fn set(
    State(delivery): State<Delivery>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<set_presence::v3::Request>,
) -> Result<Ruma<set_presence::v3::Response>> {
    limits.signal(&requester)?;
    requester.must_be(&request.user_id)?;
    let (presence, state) = (enabled(&delivery)?, known(request.presence)?);
    if request.status_msg.as_ref().is_some_and(|text| text.len() > LONGEST_STATUS) {
        return Err(chappe_web::Error::invalid_param("The status message is too long").into());
    }
    presence.set_local(requester.user(), state, request.status_msg).await?;
    Ok(Ruma(set_presence::v3::Response::new()))
}

pub(super) async fn show(
    State(delivery): State<Delivery>,
    State(rooms): State<Rooms>,
    State(world): State<World>,
    requester: Requester,
    Ruma(request): Ruma<get_presence::v3::Request>,
) -> Result<Ruma<get_presence::v3::Response>> {
    let presence = enabled(&delivery)?;
    if request.user_id != requester.user() && !rooms.share_a_room(requester.user(), &request.user_id).await? {
        return Err(chappe_web::Error::forbidden("You share no room with this user").into());
    }
    let Some(known) = presence.of(&request.user_id) else {
        return Ok(Ruma(get_presence::v3::Response::new(PresenceState::Offline)));
    };
    let mut response = get_presence::v3::Response::new(known.state);
    response.status_msg = known.status_msg;
    response.currently_active = Some(known.currently_active);
    response.last_active_ago = Some(world.instant().saturating_duration_since(known.last_active));
    Ok(Ruma(response))
}

/// 400 `M_INVALID_PARAM` for a state that there is not.
pub(super) fn known(presence: PresenceState) -> Result<PresenceState, chappe_web::Error> {
    if chappe_rules::presence::is_known(&presence) {
        return Ok(presence);
    }
    Err(chappe_web::Error::invalid_param("Presence is online, offline or unavailable"))
}

fn enabled(delivery: &Delivery) -> Result<&Presence> {
    if delivery.presence().is_enabled() {
        return Ok(delivery.presence());
    }
    Err(chappe_web::Error::forbidden("Presence is switched off on this server").into())
}
