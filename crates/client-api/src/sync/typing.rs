//! `PUT /rooms/{roomId}/typing/{userId}`: somebody is writing.

use std::time::Duration;

use axum::extract::State;
use chappe_delivery::Delivery;
use chappe_web::Ruma;
use ruma::api::client::typing::create_typing_event::v3::{Request, Response, Typing};

use crate::{error::Result, requester::Acting};

pub(super) async fn handler(
    State(delivery): State<Delivery>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    requester.must_be(&request.user_id)?;
    let typing: Option<Duration> = match request.state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    if !delivery.typing().set_local(&request.room_id, requester.user(), typing).await? {
        return Err(chappe_web::Error::forbidden("You are not in this room").into());
    }
    Ok(Ruma(Response::new()))
}
