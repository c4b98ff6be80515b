//! `GET /_matrix/federation/v1/query/directory`: where an alias of this server points, as far as the asking server may know.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::query::get_room_information::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    let target = federation.rooms().alias_for(&origin, &request.room_alias).await?;
    Ok(Ruma(Response::new(target.room_id, target.servers)))
}
