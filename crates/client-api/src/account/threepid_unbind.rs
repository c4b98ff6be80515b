//! `POST /account/3pid/unbind`: has identity servers forget that an address is the user's.

use axum::extract::State;
use chappe_identity::{Email, IdentityService};
use chappe_web::Ruma;
use ruma::{
    UserId,
    api::client::account::{
        ThirdPartyIdRemovalStatus,
        unbind_3pid::v3::{Request, Response},
    },
    thirdparty::Medium,
};

use crate::{error::Result, rates::Limits, requester::Acting};

pub(super) async fn handler(
    State(service): State<IdentityService>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let email = Email::parse(&request.address).ok().filter(|_| request.medium == Medium::Email);
    let named = request.id_server.as_deref();
    Ok(Ruma(Response::new(unbound(&service, requester.user(), email.as_ref(), named).await?)))
}

/// Has the named identity server, or all that are known to, forget whose an address is.
pub(super) async fn unbound(
    service: &IdentityService,
    user: &UserId,
    email: Option<&Email>,
    id_server: Option<&str>,
) -> Result<ThirdPartyIdRemovalStatus> {
    let Some(email) = email else { return Ok(ThirdPartyIdRemovalStatus::NoSupport) };
    let done = service.unbind_for(user, email, id_server).await?;
    Ok(if done { ThirdPartyIdRemovalStatus::Success } else { ThirdPartyIdRemovalStatus::NoSupport })
}
