//! `GET /_matrix/federation/v1/query/{queryType}`: questions of a type that this server does not know.

use axum::extract::State;
use chappe_web::Error;
use http::StatusCode;
use ruma::api::federation::query::get_custom_information::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(_): State<Federation>,
    Origin { .. }: Origin<Request>,
) -> Answer<Response> {
    let why = "This server answers questions of the types directory and profile";
    Err(Error::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", why).into())
}
