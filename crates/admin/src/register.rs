//! `/_synapse/admin/v1/register`: accounts made by whoever knows the shared secret, as Synapse documents it.

use std::{collections::HashMap, sync::Arc};

use axum::{Json, Router, extract::State, routing::get};
use chappe_accounts::{Accounts, LogIn, LogInMethod, NewUser, Refreshing, UserKind};
use chappe_web::Error;
use chappe_world::World;
use http::StatusCode;
use parking_lot::Mutex;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{api::body::Body, run::operator};

/// How long a nonce can be used.
const NONCE_MS: u64 = 60_000;
/// Nonces that wait at a time; beyond, the endpoint is busy.
const NONCES: usize = 1000;
/// The route.
const PATH: &str = "/_synapse/admin/v1/register";

/// The secret, never shown.
#[derive(Clone)]
pub struct SharedSecret(String);

impl SharedSecret {
    /// A secret; `None` when there are no characters beside white space around it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }
}

#[derive(Clone)]
struct Desk {
    accounts: Accounts,
    world: World,
    key: Arc<hmac::Key>,
    /// Nonce → when it ends.
    nonces: Arc<Mutex<HashMap<String, u64>>>,
}

/// The route, for those listeners that serve `admin`.
pub fn register_routes(accounts: Accounts, world: World, secret: &SharedSecret) -> Router {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.0.as_bytes());
    let desk = Desk { accounts, world, key: Arc::new(key), nonces: Arc::default() };
    Router::new().route(PATH, get(nonce).post(register)).with_state(desk)
}

#[derive(Serialize)]
struct Nonce {
    nonce: String,
}

async fn nonce(State(desk): State<Desk>) -> Result<Json<Nonce>, Error> {
    let now = desk.world.now();
    let nonce = desk.world.token(64);
    let mut nonces = desk.nonces.lock();
    nonces.retain(|_, ends| *ends > now);
    if nonces.len() >= NONCES {
        return Err(Error::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "Too many nonces"));
    }
    nonces.insert(nonce.clone(), now + NONCE_MS);
    Ok(Json(Nonce { nonce }))
}

#[derive(Deserialize)]
struct Registration {
    nonce: String,
    username: String,
    password: String,
    mac: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    user_type: Option<String>,
    #[serde(default)]
    displayname: Option<String>,
}

#[derive(Serialize)]
struct Registered {
    access_token: String,
    user_id: String,
    home_server: String,
    device_id: String,
}

async fn register(
    State(desk): State<Desk>,
    Body(registration): Body<Registration>,
) -> Result<Json<Registered>, Error> {
    let now = desk.world.now();
    let ends = desk.nonces.lock().remove(&registration.nonce);
    if ends.is_none_or(|ends| ends <= now) {
        return Err(bad_request("unrecognised nonce"));
    }
    if [&registration.username, &registration.password].iter().any(|text| text.contains('\0')) {
        return Err(bad_request("NUL is not allowed"));
    }
    if !authentic(&desk.key, &registration) {
        return Err(Error::forbidden("HMAC incorrect"));
    }
    let operator = operator(desk.accounts.server_name());
    let details = json!({ "username": registration.username, "admin": registration.admin });
    let audit = desk.accounts.audit();
    let asked = audit.asked(&operator, format!("POST {PATH}"), details).await;
    let asked = asked.map_err(|error| Error::internal(error.to_string()))?;
    let registered = create(&desk, registration).await;
    audit.answered(&operator, asked, registered.as_ref().err().map(ToString::to_string)).await;
    registered
}

async fn create(desk: &Desk, registration: Registration) -> Result<Json<Registered>, Error> {
    let user_id = desk
        .accounts
        .create_user(NewUser {
            localpart: Some(registration.username.to_lowercase()),
            kind: UserKind::User,
            admin: registration.admin,
            password: Some(registration.password),
            displayname: registration.displayname,
            ..NewUser::default()
        })
        .await
        .map_err(|error| refused(&error))?;
    let log_in = LogIn {
        user_id: user_id.clone(),
        device_id: None,
        device_name: None,
        refreshing: Refreshing::No,
        by: Some(LogInMethod::SignUp),
    };
    let issued = desk.accounts.log_in(log_in).await.map_err(|error| refused(&error))?;
    Ok(Json(Registered {
        access_token: issued.access_token,
        home_server: user_id.server_name().to_string(),
        user_id: user_id.to_string(),
        device_id: issued.device_id.to_string(),
    }))
}

/// Compares in constant time.
fn authentic(key: &hmac::Key, registration: &Registration) -> bool {
    let Some(mac) = unhexed(&registration.mac) else { return false };
    let admin = if registration.admin { "admin" } else { "notadmin" };
    let mut parts = vec![&*registration.nonce, &registration.username, &registration.password, admin];
    parts.extend(registration.user_type.as_deref());
    hmac::verify(key, parts.join("\0").as_bytes(), &mac).is_ok()
}

fn unhexed(text: &str) -> Option<Vec<u8>> {
    if text.len() != 40 || !text.is_ascii() {
        return None;
    }
    (0..40).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn bad_request(sentence: &'static str) -> Error {
    Error::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", sentence)
}

fn refused(error: &chappe_accounts::Error) -> Error {
    use chappe_accounts::Error as Accounts;
    let code = match error {
        Accounts::UserInUse => "M_USER_IN_USE",
        Accounts::InvalidUsername(_) => "M_INVALID_USERNAME",
        Accounts::Reserved => "M_EXCLUSIVE",
        Accounts::WeakPassword(weakness) => weakness.errcode(),
        Accounts::Store(_) => return Error::internal(error.to_string()),
        _ => "M_UNKNOWN",
    };
    Error::new(StatusCode::BAD_REQUEST, code, error.to_string())
}
