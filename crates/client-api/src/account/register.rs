//! `POST /register`: a new account, by the proofs that the configuration asks for.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::{Accounts, LogIn, LogInMethod, NewUser, UserKind};
use chappe_identity::{IdentityService, SignUp};
use chappe_web::{Origin, Ruma};
use ruma::api::client::account::register::{
    LoginType, RegistrationKind,
    v3::{Request, Response},
};

use crate::{
    Config,
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
            let (username, password) = (request.username.as_deref(), request.password.as_deref());
            let address = origin.subject();
            let wanted = SignUp { username, password, auth: request.auth.as_ref(), address: &address };
            service.sign_up(&accounts, &config.registration, wanted).await?
        }
        _ => return Err(closed().into()),
    };
    let mut response = Response::new(user.clone());
    if !request.inhibit_login {
        let (device_id, device_name) = (request.device_id, request.initial_device_display_name);
        let refreshing = refreshing(request.refresh_token);
        let by = Some(LogInMethod::SignUp);
        let issued = accounts.log_in(LogIn { user_id: user, device_id, device_name, refreshing, by }).await?;
        response.expires_in = lifetime(&issued);
        response.access_token = Some(issued.access_token);
        response.device_id = Some(issued.device_id);
        response.refresh_token = issued.refresh_token;
    }
    Ok(Ruma(response))
}

fn closed() -> chappe_web::Error {
    chappe_web::Error::forbidden("Registration is not open on this server")
}
