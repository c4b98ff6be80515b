//! `POST /account/3pid/delete`: unbinds an address.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_identity::IdentityService;
use chappe_web::Ruma;
use ruma::api::client::account::delete_3pid::v3::{Request, Response};

use super::threepid_unbind::unbound;
use crate::{Config, error::Result, requester::Acting};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(service): State<IdentityService>,
    State(config): State<Arc<Config>>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    if !config.threepid_changes {
        return Err(chappe_web::Error::forbidden("Addresses are not changed by users on this server").into());
    }
    let place = (&request.medium, request.address.as_str());
    accounts.remove_threepid(requester.user(), place.0, place.1).await?;
    let unbound = unbound(&service, requester.user(), place, request.id_server.as_deref()).await?;
    Ok(Ruma(Response::new(unbound)))
}
