//! `POST /register`: a new account, by the proofs that the configuration asks for.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::{Accounts, LogIn, NewUser, Operation, Proof, UserKind, Verified};
use chappe_identity::{Email, IdentityService, Purpose};
use chappe_web::{Origin, Ruma};
use ruma::{
    OwnedUserId,
    api::client::{
        account::register::{
            LoginType, RegistrationKind,
            v3::{Request, Response},
        },
        uiaa::AuthType,
    },
};

use crate::{
    Config, Registration,
    error::Result,
    rates::Limits,
    requester::Serving,
    session::{lifetime, refreshing},
};

#[expect(clippy::too_many_arguments, reason = "extractors, one by one")]
pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(service): State<IdentityService>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    origin: Origin,
    Serving(serving): Serving,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let is_service = matches!(request.login_type, Some(LoginType::ApplicationService));
    if !(is_service && serving.is_ok()) {
        limits.ip("registration", origin, |rates| rates.registration)?;
    }
    let user = match (&request.kind, &request.login_type) {
        (_, Some(LoginType::ApplicationService)) => {
            let (service, name) = (serving?, request.username.as_deref());
            let name = name.ok_or_else(|| chappe_web::Error::missing_param("username"))?;
            accounts.create_service_user(&service, name).await?
        }
        (RegistrationKind::Guest, _) if config.registration.guests => {
            accounts.create_user(NewUser { kind: UserKind::Guest, ..NewUser::default() }).await?
        }
        (RegistrationKind::User, _) if config.registration.is_possible() => {
            sign_up(&accounts, &service, &config.registration, &request).await?
        }
        _ => return Err(closed().into()),
    };
    let mut response = Response::new(user.clone());
    if !request.inhibit_login {
        let (device_id, device_name) = (request.device_id, request.initial_device_display_name);
        let refreshing = refreshing(request.refresh_token);
        let issued = accounts.log_in(LogIn { user_id: user, device_id, device_name, refreshing }).await?;
        response.expires_in = lifetime(&issued);
        response.access_token = Some(issued.access_token);
        response.device_id = Some(issued.device_id);
        response.refresh_token = issued.refresh_token;
    }
    Ok(Ruma(response))
}

async fn sign_up(
    accounts: &Accounts,
    service: &IdentityService,
    registration: &Registration,
    request: &Request,
) -> Result<OwnedUserId> {
    let identity = service.identity();
    // Tell at once what can never work, before anybody types an address or waits for a mail.
    let named_by_address = registration.email && identity.names_accounts();
    let name = request.username.as_deref().filter(|_| !named_by_address);
    if let Some(name) = name {
        accounts.check_available(name, UserKind::User).await?;
    }
    if let Some(password) = &request.password {
        accounts.check_password(password)?;
    }
    // Not bound to the body: clients ask for the flows with an empty request, or name the account last.
    let operation = Operation::new("POST", "/register");
    let (stage, flows) = (identity.stage(Purpose::Registration), flows(registration));
    let proof = Proof { auth: request.auth.as_ref(), flows: &flows, email: Some(&stage), params: None };
    let verified = accounts.authorize(&operation, proof).await?;
    let new = NewUser {
        localpart: name.map(str::to_owned),
        password: request.password.clone(),
        email: verified.email.clone(),
        published: verified.email.is_some() && service.binds_new_accounts(),
        registration_token: verified.registration_token.clone(),
        ..NewUser::default()
    };
    let user = match proved_address(&verified).filter(|_| named_by_address) {
        // The names follow from the address: the first that is free (profile `agents`).
        Some(email) => identity.naming(&email)?.create(accounts, new).await?,
        None => accounts.create_user(new).await?,
    };
    // What waited for the address finds its way now.
    service.wake();
    Ok(user)
}

/// The flows that lead to an account, best first.
fn flows(registration: &Registration) -> Vec<Vec<AuthType>> {
    let mut proofs = Vec::new();
    if registration.token {
        proofs.push(AuthType::RegistrationToken);
    }
    if registration.email {
        proofs.push(AuthType::EmailIdentity);
    }
    let mut flows = Vec::new();
    if !proofs.is_empty() {
        flows.push(proofs);
    }
    if registration.open {
        flows.push(vec![AuthType::Dummy]);
    }
    flows
}

fn proved_address(verified: &Verified) -> Option<Email> {
    verified.email.as_deref().and_then(|address| Email::parse(address).ok())
}

fn closed() -> chappe_web::Error {
    chappe_web::Error::forbidden("Registration is not open on this server")
}
