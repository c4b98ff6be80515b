//! `GET /notifications`: what the user was or would have been notified of.

use axum::{Json, extract::State};
use chappe_delivery::{Delivery, NotificationsRequest};
use chappe_web::Ruma;
use ruma::api::client::push::get_notifications::v3::Request;
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Requester};

/// Notifications of a page when the request does not say how many.
const USUAL: usize = 20;

pub(super) async fn handler(
    State(delivery): State<Delivery>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let only_highlights = match request.only.as_deref() {
        None | Some("") => false,
        Some("highlight") => true,
        Some(_) => return Err(chappe_web::Error::invalid_param("only can be `highlight`").into()),
    };
    let limit = request.limit.map_or(USUAL, |limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX));
    let wanted = NotificationsRequest { from: request.from, limit, only_highlights };
    let page = delivery.notifications(requester.user(), &wanted).await?;
    let entry = |found: &chappe_delivery::Notification| {
        json!({
            "actions": found.actions, "event": found.event, "read": found.read, "room_id": found.room,
            "ts": found.ts,
        })
    };
    let mut answer = json!({ "notifications": page.list.iter().map(entry).collect::<Vec<_>>() });
    if let Some(next) = page.next {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}
