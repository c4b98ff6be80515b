//! `GET /thirdparty/protocol/{protocol}`: one network.

use axum::{Json, extract::State};
use chappe_appservices::Services;
use chappe_web::Ruma;
use ruma::api::client::thirdparty::get_protocol::v3::Request;
use serde_json::Value;

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(services): State<Services>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let found = services.link().protocol(&request.protocol).await;
    let found = found.ok_or_else(|| chappe_web::Error::not_found("Nobody connects this network"))?;
    Ok(Json(found))
}
