//! `GET /v1/rooms`: rooms, filtered, sorted, page by page.

use axum::{Json, extract::State};
use chappe_rooms::{RoomOrder, RoomQuery};
use chappe_web::Parameters;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Dir, Page, Result, page::no_such_order};

#[derive(Deserialize)]
pub(super) struct Query {
    search_term: Option<String>,
    public_rooms: Option<bool>,
    empty_rooms: Option<bool>,
    order_by: Option<String>,
    dir: Option<Dir>,
}

pub(super) async fn handler(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    if query.search_term.as_deref() == Some("") {
        return Err(chappe_web::Error::invalid_param("search_term must not be empty").into());
    }
    let wanted = RoomQuery {
        search: query.search_term,
        public: query.public_rooms,
        empty: query.empty_rooms,
        order: order(query.order_by.as_deref())?,
        backward: query.dir.is_some_and(Dir::is_backward),
        from: page.from(),
        limit: page.limit(),
    };
    let found = api.rooms.list(&wanted).await?;
    let mut answer = json!({ "rooms": found.rooms, "offset": page.from(), "total_rooms": found.total });
    if let Some(next) = page.next(found.total) {
        answer["next_batch"] = next.into();
    }
    if page.from() > 0 {
        answer["prev_batch"] = page.from().saturating_sub(page.limit()).into();
    }
    Ok(Json(answer))
}

fn order(word: Option<&str>) -> Result<RoomOrder, chappe_web::Error> {
    Ok(match word.unwrap_or("name") {
        "name" | "alphabetical" => RoomOrder::Name,
        "canonical_alias" => RoomOrder::Alias,
        "joined_members" | "size" => RoomOrder::Members,
        "joined_local_members" => RoomOrder::LocalMembers,
        "version" => RoomOrder::Version,
        "creator" => RoomOrder::Creator,
        "encryption" => RoomOrder::Encryption,
        "federatable" => RoomOrder::Federatable,
        "public" => RoomOrder::Public,
        "join_rules" => RoomOrder::JoinRules,
        "guest_access" => RoomOrder::GuestAccess,
        "history_visibility" => RoomOrder::HistoryVisibility,
        "state_events" => RoomOrder::StateEvents,
        _ => return Err(no_such_order()),
    })
}
