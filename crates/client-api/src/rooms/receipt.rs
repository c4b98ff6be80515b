//! `POST /rooms/{roomId}/receipt/{receiptType}/{eventId}`: read up to here.

use axum::extract::State;
use chappe_rooms::{Markers, Rooms};
use chappe_web::Ruma;
use ruma::api::client::receipt::create_receipt::v3::{ReceiptType, Request, Response};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.signal(&requester)?;
    let (actor, room, kind) = (requester.actor(), &request.room_id, &request.receipt_type);
    if *kind == ReceiptType::FullyRead {
        let markers = Markers { fully_read: Some(request.event_id), ..Markers::default() };
        rooms.set_markers(&actor, room, &markers).await?;
    } else {
        rooms.set_receipt(&actor, room, kind, &request.event_id, &request.thread).await?;
    }
    Ok(Ruma(Response::new()))
}
