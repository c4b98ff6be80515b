//! `PUT /_matrix/federation/v1/send/{txnId}`: events and EDUs.

use axum::extract::State;
use chappe_web::{Error, Ruma};
use ruma::api::federation::transactions::send_transaction_message::v1::{Request, Response};

use crate::{Federation, Origin, inbound::Received, refusal::Answer};

/// PDUs of a transaction at most (server-server API, "Transactions").
const PDUS: usize = 50;
/// EDUs of a transaction at most.
const EDUS: usize = 100;
/// The longest id of a transaction, in bytes: it is kept with the answer.
const ID_BYTES: usize = 255;

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { origin, request }: Origin<Request>,
) -> Answer<Response> {
    if request.pdus.len() > PDUS || request.edus.len() > EDUS {
        return Err(Error::invalid_param("Too many events in one transaction").into());
    }
    if request.transaction_id.as_str().len() > ID_BYTES {
        return Err(Error::invalid_param("The id of the transaction is too long").into());
    }
    let received = Received {
        origin,
        id: request.transaction_id.to_string(),
        pdus: request.pdus,
        edus: request.edus.into_iter().map(ruma::serde::Raw::into_json).collect(),
    };
    let results = federation.receive(received).await?;
    Ok(Ruma(Response::new((*results).clone())))
}
