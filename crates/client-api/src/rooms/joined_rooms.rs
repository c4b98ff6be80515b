//! `GET /joined_rooms`: the rooms the user is in.

use axum::extract::State;
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::api::client::membership::joined_rooms::v3::Response;

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(State(rooms): State<Rooms>, requester: Requester) -> Result<Ruma<Response>> {
    Ok(Ruma(Response::new(rooms.joined_rooms(requester.user()).await?)))
}
