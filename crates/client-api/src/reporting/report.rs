//! `POST /rooms/{roomId}/report/{eventId}`, `/rooms/{roomId}/report` and `/users/{userId}/report`.

use axum::extract::State;
use chappe_rooms::{Reported, Rooms};
use chappe_web::Ruma;
use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn event(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<report_content::v3::Request>,
) -> Result<Ruma<report_content::v3::Response>> {
    limits.user("report", &requester, |rates| rates.invite)?;
    let what = Reported::Event { room: request.room_id, event: request.event_id };
    rooms.report(&requester.actor(), what, request.reason.unwrap_or_default()).await?;
    Ok(Ruma(report_content::v3::Response::new()))
}

pub(super) async fn room(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<report_room::v3::Request>,
) -> Result<Ruma<report_room::v3::Response>> {
    limits.user("report", &requester, |rates| rates.invite)?;
    rooms.report(&requester.actor(), Reported::Room { room: request.room_id }, request.reason).await?;
    Ok(Ruma(report_room::v3::Response::new()))
}

pub(super) async fn user(
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<report_user::v3::Request>,
) -> Result<Ruma<report_user::v3::Response>> {
    limits.user("report", &requester, |rates| rates.invite)?;
    rooms.report(&requester.actor(), Reported::User { user: request.user_id }, request.reason).await?;
    Ok(Ruma(report_user::v3::Response::new()))
}
