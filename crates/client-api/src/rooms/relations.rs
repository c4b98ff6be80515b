//! `GET /rooms/{roomId}/relations/{eventId}[/{relType}[/{eventType}]]`: what relates to an event.

use axum::{Json, extract::State};
use chappe_rooms::{Recurse, RelationsRequest, Rooms};
use chappe_web::{Parameters, Ruma};
use ruma::api::client::relations::{
    get_relating_events as all_api, get_relating_events_with_rel_type as kind_api,
    get_relating_events_with_rel_type_and_event_type as type_api,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

/// The name that `recurse` had before it was in the specification, which clients still use.
#[derive(Deserialize)]
pub(super) struct Old {
    #[serde(rename = "org.matrix.msc3981.recurse", default)]
    recurse: bool,
}

async fn page(
    rooms: &Rooms,
    requester: &Requester,
    room: &ruma::RoomId,
    request: RelationsRequest<'_>,
) -> Result<Json<Value>> {
    let page = rooms.relations(&requester.actor(), room, &request).await?;
    let mut answer = json!({ "chunk": page.chunk });
    for (name, token) in [("next_batch", page.next_batch), ("prev_batch", page.prev_batch)] {
        if let Some(token) = token {
            answer[name] = token.into();
        }
    }
    if let Some(depth) = page.recursion_depth {
        answer["recursion_depth"] = depth.into();
    }
    Ok(Json(answer))
}

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident: $api:ident, |$request:ident| $rel_type:expr, $event_type:expr;)*) => {$(
        $(#[$doc])*
        pub(super) async fn $name(
            State(rooms): State<Rooms>,
            requester: Requester,
            Parameters(old): Parameters<Old>,
            Ruma($request): Ruma<$api::v1::Request>,
        ) -> Result<Json<Value>> {
            let (rel_type, event_type): (Option<String>, Option<String>) = ($rel_type, $event_type);
            let recurse = if $request.recurse || old.recurse { Recurse::Yes } else { Recurse::No };
            let wanted = RelationsRequest {
                event: &$request.event_id,
                rel_type: rel_type.as_deref(),
                event_type: event_type.as_deref(),
                from: $request.from.as_deref(),
                to: $request.to.as_deref(),
                direction: $request.dir,
                limit: $request.limit.map(u64::from),
                recurse,
            };
            page(&rooms, &requester, &$request.room_id, wanted).await
        }
    )*};
}

endpoints! {
    /// All relations.
    all: all_api, |request| None, None;
    /// Those of one relation type.
    of_kind: kind_api, |request| Some(request.rel_type.to_string()), None;
    /// Those of one relation type and event type.
    of_type: type_api, |request| Some(request.rel_type.to_string()), Some(request.event_type.to_string());
}
