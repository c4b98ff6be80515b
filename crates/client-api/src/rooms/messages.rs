//! `GET /rooms/{roomId}/messages`: the history, page by page.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{self, FromRequest, Query, State},
};
use chappe_rooms::{PageRequest, Relations, Rooms};
use chappe_web::Ruma;
use http::Uri;
use ruma::api::client::message::get_message_events::v3::Request;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    mut request: extract::Request,
) -> Result<Json<Value>> {
    *request.uri_mut() = with_direction(request.uri());
    let relations = relations(request.uri());
    let Ruma(request) = Ruma::<Request>::from_request(request, &()).await?;
    let wanted = PageRequest {
        from: request.from.as_deref(),
        to: request.to.as_deref(),
        direction: request.dir,
        limit: request.limit.into(),
        filter: &request.filter,
        relations: relations.as_ref(),
    };
    let page = rooms.messages(&requester.actor(), &request.room_id, wanted).await?;
    let mut answer = json!({ "start": page.start, "chunk": page.chunk, "state": page.state });
    if let Some(end) = page.end {
        answer["end"] = end.into();
    }
    Ok(Json(answer))
}

/// What the filter says of relations; its other fields are judged with the request.
fn relations(uri: &Uri) -> Option<Relations> {
    let query: Query<HashMap<String, String>> = Query::try_from_uri(uri).ok()?;
    query.get("filter").and_then(|filter| serde_json::from_str(filter).ok())
}

/// Clients of old leave the direction out and mean forward.
fn with_direction(uri: &Uri) -> Uri {
    let query = uri.query().unwrap_or_default();
    if query.split('&').any(|pair| pair.starts_with("dir=")) {
        return uri.clone();
    }
    let completed = format!("{}?{query}&dir=f", uri.path());
    completed.parse().unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::with_direction;

    #[test]
    fn a_missing_direction_is_forward() {
        for (given, meant) in [
            ("/rooms/!r/messages", "/rooms/!r/messages?&dir=f"),
            ("/rooms/!r/messages?limit=1", "/rooms/!r/messages?limit=1&dir=f"),
            ("/rooms/!r/messages?dir=b&limit=1", "/rooms/!r/messages?dir=b&limit=1"),
        ] {
            assert_eq!(with_direction(&given.parse().unwrap()), meant);
        }
    }
}
