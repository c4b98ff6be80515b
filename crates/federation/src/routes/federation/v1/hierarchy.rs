//! `GET /_matrix/federation/v1/hierarchy/{roomId}`: a space and its rooms, as far as the server may know them.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::space::get_hierarchy::v1::{Request, Response};

use crate::{
    Federation, Origin,
    refusal::{Answer, Refusal},
};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    // Whoever may not come in learns no more than of a room that is not there.
    if !federation.acl_allows(&origin, &request.room_id).await? {
        return Err(Refusal::not_found());
    }
    let rooms = federation.rooms();
    Ok(Ruma(rooms.hierarchy_for(&origin, &request.room_id, request.suggested_only).await?))
}
