//! `POST /user/{userId}/filter` and `GET /user/{userId}/filter/{filterId}`.

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::filter::{create_filter, get_filter};

use crate::{error::Result, requester::Requester};

pub(super) async fn create(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<create_filter::v3::Request>,
) -> Result<Ruma<create_filter::v3::Response>> {
    requester.must_be(&request.user_id)?;
    let id = accounts.store_filter(requester.user(), &request.filter).await?;
    Ok(Ruma(create_filter::v3::Response::new(id)))
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_filter::v3::Request>,
) -> Result<Ruma<get_filter::v3::Response>> {
    requester.must_be(&request.user_id)?;
    let filter = accounts.filter(requester.user(), &request.filter_id).await?;
    let filter = filter.ok_or_else(|| chappe_web::Error::not_found("No such filter"))?;
    Ok(Ruma(get_filter::v3::Response::new((*filter).clone())))
}
