//! Who is asking: the access token of a request, looked up.

use std::{borrow::Cow, ops::Deref, sync::Arc};

use axum::extract::{FromRef, FromRequestParts, MatchedPath};
use chappe_accounts::Accounts;
use chappe_appservices::Services;
use chappe_rooms::{Actor, Standing};
use chappe_rules::appservice::Registration;
use chappe_web::Origin;
use http::{StatusCode, header, request::Parts};
use ruma::{DeviceId, UserId};
use url::form_urlencoded;

use crate::{Api, Config, Error, error::Result, rates::Limits};

/// The user and device behind a request. Suspended users may read; guests only reach the endpoints that are theirs.
#[derive(Clone, Debug)]
pub(crate) struct Requester(chappe_accounts::Requester);

/// A [`Requester`] who may do things that others see: not suspended.
#[derive(Clone, Debug)]
pub(crate) struct Acting(Requester);

/// A [`Requester`], or nobody: for endpoints where a token makes a difference.
#[derive(Clone, Debug)]
pub(crate) struct Anybody(pub(crate) Option<Requester>);

/// As [`Requester`], for the requests that a locked account or one that has ended may still make: logging out.
#[derive(Clone, Debug)]
pub(crate) struct Leaving(pub(crate) Requester);

/// As [`Requester`], for renewing an account that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Renewing(pub(crate) Requester);

impl Deref for Requester {
    type Target = chappe_accounts::Requester;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Deref for Acting {
    type Target = Requester;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Requester {
    /// The user.
    pub(crate) fn user(&self) -> &UserId {
        &self.0.user_id
    }

    /// The device.
    pub(crate) fn device(&self) -> Result<&DeviceId> {
        Ok(self.0.device()?)
    }

    /// The requester as rooms see it.
    pub(crate) fn actor(&self) -> Actor {
        Actor {
            user: self.0.user_id.clone(),
            device: self.0.device_id.clone(),
            standing: match (self.0.admin, self.0.is_guest()) {
                (true, _) => Standing::Administrator,
                (_, true) => Standing::Guest,
                _ => Standing::Ordinary,
            },
            appservice: self.0.appservice.clone(),
        }
    }

    /// The application service that makes the request in the user's name.
    pub(crate) fn appservice(&self) -> Option<&Arc<Registration>> {
        self.0.appservice.as_ref()
    }

    /// Whether what this requester does is counted: all but what users do whom an administrator has freed of it, and what
    /// services do as themselves, or as anybody if their registration says so (application service API, "Registration",
    /// `rate_limited`).
    pub(crate) fn is_counted(&self) -> bool {
        if self.0.rate.is_some_and(|rate| rate.per_second == 0) {
            return false;
        }
        self.appservice().is_none_or(|service| service.rate_limited && self.0.user_id != service.sender)
    }

    /// Refuses a URL that names somebody else than the requester.
    pub(crate) fn must_be(&self, user: &UserId) -> Result<()> {
        if self.0.user_id == *user {
            return Ok(());
        }
        Err(chappe_web::Error::forbidden("This is for the user alone").into())
    }
}

impl FromRequestParts<Api> for Requester {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let token = token(parts, api)?.ok_or_else(chappe_web::Error::missing_token)?;
        let accounts = Accounts::from_ref(api);
        let requester = match masquerade(parts, api, &accounts, &token).await? {
            Some(requester) => requester,
            None => Self(accounts.authenticate(&token).await?),
        };
        Limits::from_ref(api).user("request", &requester, |rates| rates.request)?;
        if requester.is_guest() && !open_to_guests(parts) {
            return Err(not_for_guests().into());
        }
        if let Some(device) = &requester.device_id {
            let Ok(Origin(ip)) = Origin::from_request_parts(parts, api).await;
            accounts.saw(requester.user(), device, Some(ip));
        }
        Ok(requester)
    }
}

impl FromRequestParts<Api> for Acting {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let requester = Requester::from_request_parts(parts, api).await?;
        requester.may_act()?;
        Ok(Self(requester))
    }
}

impl FromRequestParts<Api> for Anybody {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        match token(parts, api)? {
            None => Ok(Self(None)),
            Some(_) => Ok(Self(Some(Requester::from_request_parts(parts, api).await?))),
        }
    }
}

impl FromRequestParts<Api> for Leaving {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let token = token(parts, api)?.ok_or_else(chappe_web::Error::missing_token)?;
        let accounts = Accounts::from_ref(api);
        Ok(Self(match masquerade(parts, api, &accounts, &token).await? {
            Some(requester) => requester,
            None => Requester(accounts.authenticate_leaving(&token).await?),
        }))
    }
}

impl FromRequestParts<Api> for Renewing {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let token = token(parts, api)?.ok_or_else(chappe_web::Error::missing_token)?;
        let requester = Requester(Accounts::from_ref(api).authenticate_renewing(&token).await?);
        Limits::from_ref(api).user("request", &requester, |rates| rates.request)?;
        Ok(Self(requester))
    }
}

/// The application service whose token a request carries, or what to answer to a request that needs one.
#[derive(Clone, Debug)]
pub(crate) struct Serving(pub(crate) Result<Arc<Registration>>);

impl FromRequestParts<Api> for Serving {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Self::Rejection> {
        let service = match token(parts, api) {
            Ok(Some(token)) => {
                let found = Accounts::from_ref(api).appservice_of(&token).cloned();
                found.ok_or_else(|| chappe_accounts::Error::UnknownToken { soft_logout: false }.into())
            }
            Ok(None) => Err(chappe_web::Error::missing_token().into()),
            Err(error) => Err(error),
        };
        Ok(Self(service))
    }
}

/// Whom an application service acts as: parameters that every endpoint takes from services.
#[derive(Default)]
#[expect(clippy::struct_field_names, reason = "the names of the parameters")]
struct As<'a> {
    user_id: Option<Cow<'a, str>>,
    device_id: Option<Cow<'a, str>>,
    /// As MSC3202 had it.
    old_device_id: Option<Cow<'a, str>>,
}

/// The user that an application service acts as; `None` for other tokens.
///
/// Specification: application service API, "Identity assertion".
async fn masquerade(parts: &Parts, api: &Api, accounts: &Accounts, token: &str) -> Result<Option<Requester>> {
    let Some(service) = accounts.appservice_of(token) else { return Ok(None) };
    let said = acting_as(parts.uri.query().unwrap_or_default());
    let user = said.user_id.as_deref().map(UserId::parse).transpose();
    let user = user.map_err(|_| chappe_web::Error::invalid_param("user_id is not a user id"))?;
    let device = said.device_id.or(said.old_device_id);
    let device = device.as_deref().map(<&DeviceId>::from);
    let requester = accounts.masquerade(service, user.as_deref(), device).await?;
    Services::from_ref(api).heard_from(service);
    Ok(Some(Requester(requester)))
}

fn acting_as(query: &str) -> As<'_> {
    let mut said = As::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "user_id" => said.user_id = said.user_id.or(Some(value)),
            "device_id" => said.device_id = said.device_id.or(Some(value)),
            "org.matrix.msc3202.device_id" => said.old_device_id = said.old_device_id.or(Some(value)),
            _ => {}
        }
    }
    said
}

/// The access token of a request (client-server API, "Using access tokens"). In the query string only where allowed.
fn token(parts: &Parts, api: &Api) -> Result<Option<String>> {
    if let Some(header) = parts.headers.get(header::AUTHORIZATION) {
        let text = header.to_str().unwrap_or_default();
        let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
        return Ok(Some(token.ok_or_else(chappe_web::Error::missing_token)?.to_owned()));
    }
    if !Arc::<Config>::from_ref(api).tokens_in_query {
        return Ok(None);
    }
    let mut pairs = parts.uri.query().unwrap_or_default().split('&');
    let token = pairs.find_map(|pair| pair.strip_prefix("access_token="));
    Ok(token.map(str::to_owned))
}

/// The endpoints a guest may use (client-server API, "Guest access"), without the part up to the version; `*` is any segment.
const GUESTS: &[(&str, &str)] = &[
    ("GET", "account/whoami"),
    ("POST", "logout"),
    ("GET", "capabilities"),
    ("GET", "sync"),
    ("GET", "joined_rooms"),
    ("GET", "events"),
    ("GET", "rooms/*/initialSync"),
    ("GET", "rooms/*/state"),
    ("GET", "rooms/*/state/*"),
    ("GET", "rooms/*/state/*/*"),
    ("GET", "rooms/*/context/*"),
    ("GET", "rooms/*/event/*"),
    ("GET", "rooms/*/messages"),
    ("GET", "rooms/*/members"),
    ("GET", "rooms/*/joined_members"),
    ("PUT", "rooms/*/send/*/*"),
    ("PUT", "rooms/*/state/*"),
    ("PUT", "rooms/*/state/*/*"),
    ("PUT", "org.matrix.msc4140/rooms/*/delayed_event/*/*"),
    ("GET", "org.matrix.msc4140/delayed_events"),
    ("GET", "org.matrix.msc4140/delayed_events/*"),
    ("POST", "rooms/*/join"),
    ("POST", "join/*"),
    ("POST", "rooms/*/leave"),
    ("POST", "rooms/*/forget"),
    ("POST", "rooms/*/receipt/*/*"),
    ("POST", "rooms/*/read_markers"),
    ("PUT", "rooms/*/typing/*"),
    ("GET", "profile/*"),
    ("GET", "profile/*/*"),
    ("PUT", "profile/*/*"),
    ("DELETE", "profile/*/*"),
    ("GET", "devices"),
    ("GET", "devices/*"),
    ("PUT", "devices/*"),
    ("POST", "keys/upload"),
    ("POST", "keys/query"),
    ("POST", "keys/claim"),
    ("GET", "keys/changes"),
    ("PUT", "sendToDevice/*/*"),
    ("GET", "directory/room/*"),
    ("GET", "publicRooms"),
    ("POST", "publicRooms"),
    ("POST", "user/*/filter"),
    ("GET", "user/*/filter/*"),
    ("GET", "pushrules"),
    ("GET", "voip/turnServer"),
    ("GET", "org.matrix.msc4143/rtc/transports"),
    ("GET", "thirdparty/protocols"),
    ("GET", "media/download/*/*"),
    ("GET", "media/download/*/*/*"),
    ("GET", "media/thumbnail/*/*"),
    // The same by way of the content scanner.
    ("GET", "download/*/*"),
    ("GET", "thumbnail/*/*"),
    ("GET", "scan/*/*"),
    ("POST", "download_encrypted"),
    ("POST", "scan_encrypted"),
];

/// The refusal of what only whole accounts may do.
pub(crate) fn not_for_guests() -> chappe_web::Error {
    chappe_web::Error::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", "Guests may not do this")
}

fn open_to_guests(parts: &Parts) -> bool {
    let Some(path) = parts.extensions.get::<MatchedPath>() else { return false };
    let mut segments = path.as_str().trim_end_matches('/').split('/').skip(4);
    let called: Vec<&str> = segments.by_ref().collect();
    let matches = |pattern: &str| {
        let wanted: Vec<&str> = pattern.split('/').collect();
        let same = |(wanted, called): (&&str, &&str)| *wanted == "*" || wanted == called;
        wanted.len() == called.len() && wanted.iter().zip(&called).all(same)
    };
    GUESTS.iter().any(|(method, pattern)| parts.method == *method && matches(pattern))
}
