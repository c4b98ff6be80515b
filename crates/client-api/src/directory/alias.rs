//! `GET`, `PUT` and `DELETE /directory/room/{roomAlias}`.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::{Origin, Ruma};
use ruma::api::client::alias::{create_alias, delete_alias, get_alias};

use crate::{
    error::Result,
    rates::Limits,
    requester::{Acting, Anybody},
};

pub(super) async fn show(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    origin: Origin,
    Anybody(requester): Anybody,
    Ruma(request): Ruma<get_alias::v3::Request>,
) -> Result<Ruma<get_alias::v3::Response>> {
    limits.asking(requester.as_ref(), origin)?;
    let target = rooms.resolve_alias(&request.room_alias).await?;
    Ok(Ruma(get_alias::v3::Response::new(target.room_id, target.servers)))
}

pub(super) async fn create(
    State(rooms): State<Rooms>,
    requester: Acting,
    Ruma(request): Ruma<create_alias::v3::Request>,
) -> Result<Ruma<create_alias::v3::Response>> {
    match rooms.create_alias(&requester.actor(), &request.room_alias, &request.room_id).await {
        // Over this endpoint the specification wants 409 for an alias that is taken.
        Err(error @ chappe_rooms::Error::AliasInUse) => {
            let status = http::StatusCode::CONFLICT;
            Err(chappe_web::Error::new(status, "M_UNKNOWN", error.to_string()).into())
        }
        other => Ok(other.map(|()| Ruma(create_alias::v3::Response::new()))?),
    }
}

pub(super) async fn delete(
    State(rooms): State<Rooms>,
    requester: Acting,
    Ruma(request): Ruma<delete_alias::v3::Request>,
) -> Result<Ruma<delete_alias::v3::Response>> {
    rooms.delete_alias(&requester.actor(), &request.room_alias).await?;
    Ok(Ruma(delete_alias::v3::Response::new()))
}
