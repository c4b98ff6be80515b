//! `PUT /directory/list/appservice/{networkId}/{roomId}`: whether a room is listed for a third-party network.

use axum::extract::State;
use chappe_rooms::{Rooms, Visibility};
use chappe_web::Ruma;
use ruma::api::client::{
    appservice::set_room_visibility::v3::{Request, Response},
    room::Visibility as Listed,
};

use crate::{error::Result, requester::Acting};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let visibility = match request.visibility {
        Listed::Public => Visibility::Public,
        Listed::Private => Visibility::Private,
        _ => return Err(chappe_web::Error::invalid_param("Unknown visibility").into()),
    };
    let (actor, network) = (requester.actor(), &request.network_id);
    rooms.set_service_listing(&actor, network, &request.room_id, visibility).await?;
    Ok(Ruma(Response::new()))
}
