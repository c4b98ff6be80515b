//! `POST /login`: by password (of a user id or an e-mail address), by token, or as a user of an application service.

use std::sync::Arc;

use axum::extract::{FromRequest, State};
use chappe_accounts::{Accounts, LogIn, LogInMethod};
use chappe_identity::{Email, Identity};
use chappe_web::{Origin, Ruma, body_bytes};
use ruma::{
    OwnedUserId, UserId,
    api::client::{
        session::login::v3::{
            ApplicationService, DiscoveryInfo, HomeserverInfo, LoginInfo, Password, Request, Response,
        },
        uiaa::UserIdentifier,
    },
};
use serde_json::Value;

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
    State(identity): State<Identity>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    origin: Origin,
    Serving(serving): Serving,
    request: axum::extract::Request,
) -> Result<Ruma<Response>> {
    let Ruma(request) = with_type(request).await?;
    let is_service = matches!(request.login_info, LoginInfo::ApplicationService(_)) && serving.is_ok();
    if !is_service {
        limits.ip("login", origin, |rates| rates.login_by_ip)?;
    }
    let (user, by) = match &request.login_info {
        LoginInfo::Password(password) => {
            let user = named(&accounts, &identity, password).await?;
            // Counted by name where nobody has it: were all those counted as one, their 429 would tell who exists.
            let subject = user.as_ref().map_or_else(|| said(password), ToString::to_string);
            limits.named("login account", &subject, |rates| rates.login_by_account)?;
            // A name nobody has takes as long as a wrong password, and gets the same answer.
            let user = user.map_or_else(|| nobody(&accounts), Ok)?;
            accounts.verify_password(&user, &password.password).await?;
            (user, LogInMethod::Password)
        }
        LoginInfo::Token(token) => accounts.redeem_login_token(&token.token).await?,
        LoginInfo::ApplicationService(login) => {
            let service = serving?;
            (accounts.user_of_service(&service, service_user(login)?)?, LogInMethod::Service)
        }
        _ => return Err(unknown_type().into()),
    };
    let refreshing = refreshing(request.refresh_token);
    let (device_id, device_name) = (request.device_id, request.initial_device_display_name);
    let log_in = LogIn { user_id: user.clone(), device_id, device_name, refreshing, by: Some(by) };
    let issued = accounts.log_in(log_in).await?;
    let mut response = Response::new(user, issued.access_token.clone(), issued.device_id.clone());
    response.expires_in = lifetime(&issued);
    response.refresh_token = issued.refresh_token;
    if !config.public_base_url.is_empty() {
        response.well_known = Some(DiscoveryInfo::new(HomeserverInfo::new(config.public_base_url.clone())));
    }
    Ok(Ruma(response))
}

/// The request, once it says its type: without one ruma's parser has no answer.
async fn with_type(request: axum::extract::Request) -> Result<Ruma<Request>> {
    let (parts, body) = request.into_parts();
    let bytes = body_bytes(&parts, body).await?;
    let said: Value =
        serde_json::from_slice(&bytes).map_err(|error| chappe_web::Error::unreadable_json(&error))?;
    if !said["type"].is_string() {
        return Err(chappe_web::Error::bad_json("type must be a string").into());
    }
    let request = axum::extract::Request::from_parts(parts, bytes.into());
    Ok(Ruma::from_request(request, &()).await?)
}

/// The user that an application service names.
fn service_user(login: &ApplicationService) -> Result<&str> {
    #[expect(deprecated, reason = "old services name the user this way")]
    let old = login.user.as_deref();
    match (&login.identifier, old) {
        (Some(UserIdentifier::Matrix(named)), _) => Ok(&named.user),
        (None, Some(name)) => Ok(name),
        (None, None) => Err(chappe_web::Error::missing_param("identifier").into()),
        _ => Err(unknown_type().into()),
    }
}

/// Whom a log-in means; `None` if it cannot be anybody of this server.
async fn named(accounts: &Accounts, identity: &Identity, login: &Password) -> Result<Option<OwnedUserId>> {
    let by_name = |name: &str| accounts.local_user(name).ok();
    #[expect(deprecated, reason = "old clients name the user this way")]
    let (old_name, old_medium, old_address) = (&login.user, &login.medium, &login.address);
    match (&login.identifier, old_name, old_address) {
        (Some(UserIdentifier::Matrix(named)), ..) => Ok(by_name(&named.user)),
        (Some(UserIdentifier::Email(named)), ..) => by_email(identity, &named.address).await,
        (None, Some(name), _) => Ok(by_name(name)),
        (None, None, Some(address)) if old_medium.as_deref() == Some("email") => {
            by_email(identity, address).await
        }
        (None, None, None) => Err(chappe_web::Error::missing_param("identifier").into()),
        _ => Err(unknown_type().into()),
    }
}

/// The name as it was written, or as much of it as is kept.
fn said(login: &Password) -> String {
    #[expect(deprecated, reason = "old clients name the user this way")]
    let old = login.user.as_deref().or(login.address.as_deref());
    let said = match &login.identifier {
        Some(UserIdentifier::Matrix(named)) => &named.user,
        Some(UserIdentifier::Email(named)) => &named.address,
        _ => old.unwrap_or_default(),
    };
    said.trim().to_lowercase().chars().take(255).collect()
}

async fn by_email(identity: &Identity, address: &str) -> Result<Option<OwnedUserId>> {
    let Ok(email) = Email::parse(address) else { return Ok(None) };
    Ok(identity.owner(&email).await?)
}

/// A name that no account has: names cannot begin like this.
fn nobody(accounts: &Accounts) -> Result<OwnedUserId> {
    let nobody = UserId::parse(format!("@_nobody:{}", accounts.server_name()));
    nobody.map_err(|error| chappe_web::Error::internal(error).into())
}

fn unknown_type() -> chappe_web::Error {
    chappe_web::Error::new(http::StatusCode::BAD_REQUEST, "M_UNKNOWN", "Unknown type of log-in or identifier")
}
