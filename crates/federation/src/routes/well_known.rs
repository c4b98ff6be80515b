//! `GET /.well-known/matrix/server`: the name that this server's federation traffic is delegated to.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::discovery::discover_homeserver::Response;

use crate::{
    Federation,
    refusal::{Answer, Refusal},
};

pub(super) async fn handler(State(federation): State<Federation>) -> Answer<Response> {
    let name = federation.network().config().delegated_name.clone();
    Ok(Ruma(Response::new(name.ok_or_else(Refusal::not_found)?)))
}
