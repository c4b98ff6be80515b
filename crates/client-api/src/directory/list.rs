//! `GET` and `PUT /directory/list/room/{roomId}`: whether a room is listed.

use axum::extract::State;
use chappe_rooms::{Rooms, Visibility};
use chappe_web::Ruma;
use ruma::api::client::{
    directory::{get_room_visibility, set_room_visibility},
    room::Visibility as Listed,
};

use crate::{error::Result, requester::Acting};

pub(super) async fn show(
    State(rooms): State<Rooms>,
    Ruma(request): Ruma<get_room_visibility::v3::Request>,
) -> Result<Ruma<get_room_visibility::v3::Response>> {
    let visibility = match rooms.directory_visibility(&request.room_id).await? {
        Visibility::Public => Listed::Public,
        Visibility::Private => Listed::Private,
    };
    Ok(Ruma(get_room_visibility::v3::Response::new(visibility)))
}

pub(super) async fn set(
    State(rooms): State<Rooms>,
    requester: Acting,
    Ruma(request): Ruma<set_room_visibility::v3::Request>,
) -> Result<Ruma<set_room_visibility::v3::Response>> {
    let visibility = match request.visibility {
        Listed::Public => Visibility::Public,
        Listed::Private => Visibility::Private,
        _ => return Err(chappe_web::Error::invalid_param("Unknown visibility").into()),
    };
    rooms.set_directory_visibility(&requester.actor(), &request.room_id, visibility).await?;
    Ok(Ruma(set_room_visibility::v3::Response::new()))
}
