//! Who is asking: the access token of a request, looked up.

use std::{ops::Deref, sync::Arc};

use axum::extract::{FromRef, FromRequestParts, MatchedPath};
use chappe_accounts::Accounts;
use chappe_rooms::{Actor, Standing};
use chappe_web::Origin;
use http::{StatusCode, header, request::Parts};
use ruma::{DeviceId, UserId};

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

/// As [`Requester`], for the requests a locked account may still make: logging out.
#[derive(Clone, Debug)]
pub(crate) struct Leaving(pub(crate) Requester);

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
        }
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
        let requester = accounts.authenticate(&token).await?;
        Limits::from_ref(api).user("request", &requester.user_id, |rates| rates.request)?;
        if requester.is_guest() && !open_to_guests(parts) {
            return Err(not_for_guests().into());
        }
        if let Some(device) = &requester.device_id {
            let Ok(Origin(ip)) = Origin::from_request_parts(parts, api).await;
            accounts.saw(&requester.user_id, device, Some(ip));
        }
        Ok(Self(requester))
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
        let requester = Accounts::from_ref(api).authenticate_locked(&token).await?;
        Ok(Self(Requester(requester)))
    }
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
    ("GET", "thirdparty/protocols"),
    ("GET", "media/download/*/*"),
    ("GET", "media/download/*/*/*"),
    ("GET", "media/thumbnail/*/*"),
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
