//! `GET /_matrix/federation/unstable/chappe/network_list`: the signed list of the network, told to anybody who asks.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_web::Origin as Address;
use http::header;

use crate::{Federation, refusal::Refusal};

pub(super) async fn handler(
    State(federation): State<Federation>,
    address: Address,
) -> Result<Response, Refusal> {
    let network = federation.network();
    network.count("network list", &address.subject(), network.config().rates.network_list)?;
    let status = federation.list().ok_or_else(Refusal::not_found)?.status();
    let held = status.held.filter(|_| status.open).ok_or_else(Refusal::not_found)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], held.text.clone()).into_response())
}
