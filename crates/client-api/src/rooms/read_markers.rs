//! `POST /rooms/{roomId}/read_markers`: the fully-read marker and receipts at once.

use axum::extract::State;
use chappe_rooms::{Markers, Rooms};
use chappe_web::Ruma;
use ruma::api::client::read_marker::set_read_marker::v3::{Request, Response};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.signal(&requester)?;
    let markers = Markers {
        fully_read: request.fully_read,
        read: request.read_receipt,
        private_read: request.private_read_receipt,
    };
    rooms.set_markers(&requester.actor(), &request.room_id, &markers).await?;
    Ok(Ruma(Response::new()))
}
