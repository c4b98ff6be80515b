//! `POST /account/password`: a new password, for those who know the old one or read the account's mail.

use axum::extract::State;
use chappe_accounts::{Accounts, Operation, OtherDevices, Proof};
use chappe_identity::{Email, Identity, Purpose};
use chappe_web::{Origin, Ruma, WithBody};
use ruma::{
    OwnedUserId,
    api::client::{
        account::change_password::v3::{Request, Response},
        uiaa::{AuthData, AuthType},
    },
};
use serde_json::Value;

use crate::{
    error::Result,
    rates::Limits,
    requester::{Anybody, Requester},
    uia::Uia,
};

const PATH: (&str, &str) = ("POST", "/account/password");

#[expect(clippy::too_many_arguments, reason = "extractors, one by one")]
pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    State(identity): State<Identity>,
    State(limits): State<Limits>,
    origin: Origin,
    Anybody(requester): Anybody,
    WithBody(request, body): WithBody<Request>,
) -> Result<Ruma<Response>> {
    accounts.check_password(&request.new_password, Vec::new()).await?;
    let auth = request.auth.as_ref();
    let user = if let Some(requester) = &requester {
        uia.ask(requester, PATH, &body, auth).await?;
        requester.user().to_owned()
    } else {
        // Each such request opens a session or is a guess at one.
        limits.ip("password", origin, |rates| rates.registration)?;
        owner_of_mail(&accounts, &identity, &body, auth).await?
    };
    let own = requester.as_ref().and_then(|requester: &Requester| requester.device_id.as_deref());
    let others = if request.logout_devices { OtherDevices::LogOutExcept(own) } else { OtherDevices::Keep };
    accounts.set_password(&user, &request.new_password, others).await?;
    Ok(Ruma(Response::new()))
}

/// Nobody is logged in: whoever proves to read the mail of an account's address may set its password.
async fn owner_of_mail(
    accounts: &Accounts,
    identity: &Identity,
    body: &Value,
    auth: Option<&AuthData>,
) -> Result<OwnedUserId> {
    let operation = Operation::new(PATH.0, PATH.1).with_body(body);
    let stage = identity.stage(Purpose::PasswordReset);
    let flows = [vec![AuthType::EmailIdentity]];
    let proof = Proof { auth, flows: &flows, email: Some(&stage), params: None };
    let verified = accounts.authorize(&operation, proof).await?;
    let email = verified.email.as_deref().and_then(|email| Email::parse(email).ok());
    let owner = match &email {
        Some(email) => identity.owner(email).await?,
        None => None,
    };
    Ok(owner.ok_or_else(|| chappe_web::Error::forbidden("No account has this address"))?)
}
