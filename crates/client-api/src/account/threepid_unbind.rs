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
    let place = (&request.medium, request.address.as_str());
    Ok(Ruma(Response::new(unbound(&service, requester.user(), place, request.id_server.as_deref()).await?)))
}

/// Has the named identity server, or all that are known to, forget whose an address is.
pub(super) async fn unbound(
    service: &IdentityService,
    user: &UserId,
    (medium, address): (&Medium, &str),
    id_server: Option<&str>,
) -> Result<ThirdPartyIdRemovalStatus> {
    let Some(email) = Email::parse(address).ok().filter(|_| *medium == Medium::Email) else {
        return Ok(ThirdPartyIdRemovalStatus::NoSupport);
    };
    let done = service.unbind_for(user, &email, id_server).await?;
    Ok(if done { ThirdPartyIdRemovalStatus::Success } else { ThirdPartyIdRemovalStatus::NoSupport })
}
