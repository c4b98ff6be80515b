//! `POST /rooms/{roomId}/report/{eventId}`, `/rooms/{roomId}/report` and `/users/{userId}/report`.

use std::sync::Arc;

use axum::extract::State;
use chappe_rooms::{Reported, Rooms};
use chappe_web::{RateLimiter, Ruma};
use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use crate::{Config, error::Result, rates::by_user, requester::Requester};

pub(super) async fn event(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Requester,
    Ruma(request): Ruma<report_content::v3::Request>,
) -> Result<Ruma<report_content::v3::Response>> {
    by_user(&limiter, "report", requester.user(), config.rates.invite)?;
    let what = Reported::Event { room: request.room_id, event: request.event_id };
    rooms.report(&requester.actor(), what, request.reason.unwrap_or_default()).await?;
    Ok(Ruma(report_content::v3::Response::new()))
}

pub(super) async fn room(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Requester,
    Ruma(request): Ruma<report_room::v3::Request>,
) -> Result<Ruma<report_room::v3::Response>> {
    by_user(&limiter, "report", requester.user(), config.rates.invite)?;
    rooms.report(&requester.actor(), Reported::Room { room: request.room_id }, request.reason).await?;
    Ok(Ruma(report_room::v3::Response::new()))
}

pub(super) async fn user(
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limiter): State<RateLimiter>,
    requester: Requester,
    Ruma(request): Ruma<report_user::v3::Request>,
) -> Result<Ruma<report_user::v3::Response>> {
    by_user(&limiter, "report", requester.user(), config.rates.invite)?;
    rooms.report(&requester.actor(), Reported::User { user: request.user_id }, request.reason).await?;
    Ok(Ruma(report_user::v3::Response::new()))
}
