//! `GET /thirdparty/location/{protocol}` and `GET /thirdparty/location`: places of networks and their aliases here.

use axum::{Json, extract::State};
use chappe_appservices::{Services, ThirdParty};
use chappe_web::Ruma;
use ruma::api::client::thirdparty::{get_location_for_protocol, get_location_for_room_alias};
use serde_json::Value;

use super::some;
use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn of_protocol(
    State(services): State<Services>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<get_location_for_protocol::v3::Request>,
) -> Result<Json<Vec<Value>>> {
    limits.user("search", &requester, |rates| rates.search)?;
    some(services.link().search(ThirdParty::Location, &request.protocol, &request.fields).await)
}

pub(super) async fn of_alias(
    State(services): State<Services>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<get_location_for_room_alias::v3::Request>,
) -> Result<Json<Vec<Value>>> {
    limits.user("search", &requester, |rates| rates.search)?;
    some(services.link().reverse(ThirdParty::Location, request.alias.as_str()).await)
}
