//! `POST /account/3pid/delete`: unbinds an address.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus,
    delete_3pid::v3::{Request, Response},
};

use crate::{Config, error::Result, requester::Acting};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(config): State<Arc<Config>>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    if !config.threepid_changes {
        return Err(chappe_web::Error::forbidden("Addresses are not changed by users on this server").into());
    }
    accounts.remove_threepid(requester.user(), &request.medium, &request.address).await?;
    Ok(Ruma(Response::new(ThirdPartyIdRemovalStatus::NoSupport)))
}
