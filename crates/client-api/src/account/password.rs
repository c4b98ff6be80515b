//! `POST /account/password`: a new password, for those who know the old one or read the account's mail.

use axum::extract::State;
use chappe_accounts::{Accounts, Operation, OtherDevices, Proof, ProvedEmail};
use chappe_identity::{Email, Identity, Purpose};
use chappe_web::{Origin, Ruma};
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
    uia::{Confirmed, Uia},
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
    Confirmed(request, body): Confirmed<Request>,
) -> Result<Ruma<Response>> {
    accounts.check_look(&request.new_password)?;
    let auth = request.auth.as_ref();
    let own = requester.as_ref().and_then(|requester: &Requester| requester.device_id.as_deref());
    let others = if request.logout_devices { OtherDevices::LogOutExcept(own) } else { OtherDevices::Keep };
    if let Some(requester) = &requester {
        uia.ask(requester, PATH, &body, auth).await?;
        accounts.set_password(requester.user(), &request.new_password, others).await?;
    } else {
        // Each such request opens a session or is a guess at one.
        limits.ip("password", origin, |rates| rates.registration)?;
        let proved = reader_of_mail(&accounts, &body, auth, (&identity, origin)).await?;
        let user = owner(&identity, &proved.address).await?;
        accounts.reset_password(&user, &request.new_password, others, &proved.sid).await?;
    }
    Ok(Ruma(Response::new()))
}

/// Nobody is logged in: whoever proves to read the mail of an account's address may set its password, once.
async fn reader_of_mail(
    accounts: &Accounts,
    body: &Value,
    auth: Option<&AuthData>,
    (identity, origin): (&Identity, Origin),
) -> Result<ProvedEmail> {
    let operation = Operation::new(PATH.0, PATH.1).with_body(body);
    let stage = identity.stage(Purpose::PasswordReset);
    let flows = [vec![AuthType::EmailIdentity]];
    let address = origin.subject();
    let proof = Proof { auth, flows: &flows, email: Some(&stage), params: None, address: &address };
    let verified = accounts.authorize(&operation, proof).await?;
    Ok(verified.email.ok_or_else(nobody)?)
}

async fn owner(identity: &Identity, address: &str) -> Result<OwnedUserId> {
    let email = Email::parse(address).map_err(chappe_identity::Error::from)?;
    Ok(identity.owner(&email).await?.ok_or_else(nobody)?)
}

fn nobody() -> chappe_web::Error {
    chappe_web::Error::forbidden("No account has this address")
}
