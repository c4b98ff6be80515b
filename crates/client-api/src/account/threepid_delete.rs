//! `POST /account/3pid/delete`: unbinds an address.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_identity::{Email, IdentityService};
use chappe_web::Ruma;
use ruma::{
    api::client::account::delete_3pid::v3::{Request, Response},
    thirdparty::Medium,
};

use super::threepid_unbind::unbound;
use crate::{Config, error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(service): State<IdentityService>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    if !config.threepid_changes {
        return Err(chappe_web::Error::forbidden("Addresses are not changed by users on this server").into());
    }
    limits.user("search", &requester, |rates| rates.search)?;
    let email = match request.medium {
        Medium::Email => Some(Email::parse(&request.address).map_err(chappe_identity::Error::from)?),
        _ => None,
    };
    let named = request.id_server.as_deref();
    // Nothing is done for a server that is not talked with.
    named.map(|server| service.server_without_token(server)).transpose()?;
    let address = email.as_ref().map_or(request.address.as_str(), Email::as_str);
    let was_theirs = accounts.remove_threepid(requester.user(), &request.medium, address).await?;
    // Nobody is asked about an address that was not there.
    let unbound = unbound(&service, requester.user(), email.as_ref().filter(|_| was_theirs), named).await?;
    Ok(Ruma(Response::new(unbound)))
}
