//! `GET /_matrix/federation/v1/query/directory`: where an alias of this server points.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::query::get_room_information::v1::{Request, Response};

use crate::{
    Federation, Origin, gate,
    refusal::{Answer, Refusal},
};

/// Servers named at most.
const MOST: usize = 500;

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    let reader = federation.network().store().read();
    let alias = reader.alias(&request.room_alias).await?.ok_or_else(Refusal::not_found)?;
    let room = reader.room_id(alias.nid()).await?;
    if !gate::allows(&reader, alias.nid(), &origin).await? {
        return Err(Refusal::not_found());
    }
    let servers = reader.room_servers(alias.nid()).await?.into_iter().map(|(server, _)| server);
    Ok(Ruma(Response::new(room, servers.take(MOST).collect())))
}
