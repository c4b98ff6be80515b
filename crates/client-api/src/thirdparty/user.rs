//! `GET /thirdparty/user/{protocol}` and `GET /thirdparty/user`: people of networks and their user ids here.

use axum::{Json, extract::State};
use chappe_appservices::{Services, ThirdParty};
use chappe_web::Ruma;
use ruma::api::client::thirdparty::{get_user_for_protocol, get_user_for_user_id};
use serde_json::Value;

use super::some;
use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn of_protocol(
    State(services): State<Services>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<get_user_for_protocol::v3::Request>,
) -> Result<Json<Vec<Value>>> {
    limits.user("search", &requester, |rates| rates.search)?;
    some(services.link().search(ThirdParty::User, &request.protocol, &request.fields).await)
}

pub(super) async fn of_id(
    State(services): State<Services>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<get_user_for_user_id::v3::Request>,
) -> Result<Json<Vec<Value>>> {
    limits.user("search", &requester, |rates| rates.search)?;
    some(services.link().reverse(ThirdParty::User, request.userid.as_str()).await)
}
