//! `GET /keys/changes`: whose devices changed between two sync tokens.

use axum::extract::State;
use chappe_delivery::Delivery;
use chappe_web::Ruma;
use ruma::api::client::keys::get_key_changes::v3::{Request, Response};

use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(delivery): State<Delivery>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let (from, to) = (request.from.parse()?, request.to.parse()?);
    let lists = delivery.device_lists(requester.user(), from, Some(to)).await?;
    Ok(Ruma(Response::new(lists.changed, lists.left)))
}
