//! `POST /account/3pid/add`: binds an address that was proved by mail.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::Accounts;
use chappe_identity::{Identity, Purpose};
use chappe_web::Ruma;
use ruma::{
    api::client::account::add_3pid::v3::{Request, Response},
    thirdparty::Medium,
};

use crate::{
    Config,
    error::Result,
    requester::Acting,
    uia::{Confirmed, Uia},
};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    State(identity): State<Identity>,
    State(config): State<Arc<Config>>,
    requester: Acting,
    Confirmed(request, body): Confirmed<Request>,
) -> Result<Ruma<Response>> {
    if !config.threepid_changes {
        return Err(chappe_web::Error::forbidden("Addresses are not changed by users on this server").into());
    }
    uia.ask(&requester, ("POST", "/account/3pid/add"), &body, request.auth.as_ref()).await?;
    let proof = identity.validated(Purpose::AddToAccount, &request.sid, &request.client_secret).await?;
    let proved = (proof.validated_at, Some(proof.sid.as_str()));
    accounts.add_threepid(requester.user(), &Medium::Email, proof.address.as_str(), proved).await?;
    Ok(Ruma(Response::new()))
}
