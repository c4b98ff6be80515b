//! `POST /account/3pid/bind`: has an identity server say that an address is the user's.

use axum::extract::State;
use chappe_identity::IdentityService;
use chappe_web::Ruma;
use ruma::api::client::account::bind_3pid::v3::{Request, Response};

use crate::{error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(service): State<IdentityService>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let server = &request.identity_server_info;
    let named = (server.id_server.as_str(), server.id_access_token.as_str());
    service.bind_for(requester.user(), named, &request.sid, &request.client_secret).await?;
    Ok(Ruma(Response::new()))
}
