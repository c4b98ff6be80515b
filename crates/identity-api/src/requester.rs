//! Who asks: the access token of a request, looked up.

use axum::extract::{FromRef, FromRequestParts};
use chappe_identity::IdentityService;
use chappe_web::Origin;
use http::{StatusCode, header, request::Parts};
use ruma::OwnedUserId;

use crate::{
    Api, Rates,
    error::{Error, Result},
};

/// A user of the identity service who has accepted its policies.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Who.
    pub(crate) user: OwnedUserId,
    looking_up: Limits,
}

/// The same where the token may stand in the query as well: there homeservers put it that were written before version 1.20
/// of the specification, Synapse among them.
#[derive(Clone, Debug)]
pub(crate) struct MemberByQuery;

/// The bearer of an access token, policies accepted or not: for reading and accepting them, and for leaving.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    /// Who.
    pub(crate) user: OwnedUserId,
    /// With which token.
    pub(crate) token: String,
}

/// Where an unauthenticated request comes from.
#[derive(Clone, Debug)]
pub(crate) struct Anybody {
    limits: Limits,
}

#[derive(Clone, Debug)]
struct Limits {
    api: Api,
    subject: String,
}

impl Limits {
    fn count(
        &self,
        action: &'static str,
        rate: impl FnOnce(&Rates) -> chappe_web::Rate,
        many: usize,
    ) -> Result<()> {
        let rate = rate(&self.api.config().rates);
        let many = u32::try_from(many).unwrap_or(u32::MAX);
        Ok(self.api.limiter().check_many(action, &self.subject, rate, many)?)
    }
}

impl Member {
    async fn with(token: &str, api: &Api) -> Result<Self> {
        let service = IdentityService::from_ref(api);
        let user = service.member_in_good_standing(token).await?;
        let limits = |subject| Limits { api: api.clone(), subject };
        limits(user.to_string()).count("request", |rates| rates.request, 1)?;
        let looking_up = limits(service.counted_as(&user));
        Ok(Self { user, looking_up })
    }

    /// Counts addresses that are looked up.
    pub(crate) fn looks_up(&self, addresses: usize) -> Result<()> {
        self.looking_up.count("lookup", |rates| rates.lookup, addresses)
    }
}

impl Anybody {
    /// Counts a question where an address belongs.
    pub(crate) fn asks(&self) -> Result<()> {
        self.limits.count("info", |rates| rates.info, 1)
    }

    /// Counts an account that is made.
    pub(crate) fn registers(&self) -> Result<()> {
        self.limits.count("registration", |rates| rates.registration, 1)
    }

    /// Counts addresses that are looked up.
    pub(crate) fn looks_up(&self, addresses: usize) -> Result<()> {
        self.limits.count("lookup", |rates| rates.lookup, addresses)
    }
}

impl FromRequestParts<Api> for Bearer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let token = token(parts)?;
        let user = IdentityService::from_ref(api).member(&token).await?;
        let limits = Limits { api: api.clone(), subject: user.to_string() };
        limits.count("request", |rates| rates.request, 1)?;
        Ok(Self { user, token })
    }
}

impl FromRequestParts<Api> for Member {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        Self::with(&token(parts)?, api).await
    }
}

impl FromRequestParts<Api> for MemberByQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let mut pairs = parts.uri.query().unwrap_or_default().split('&');
        let queried = pairs.find_map(|pair| pair.strip_prefix("access_token=").map(str::to_owned));
        let queried = queried.filter(|_| !parts.headers.contains_key(header::AUTHORIZATION));
        let token = queried.map_or_else(|| token(parts), Ok)?;
        Member::with(&token, api).await.map(|_| Self)
    }
}

impl FromRequestParts<Api> for Anybody {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let Ok(origin) = Origin::from_request_parts(parts, api).await;
        let limits = Limits { api: api.clone(), subject: origin.subject() };
        Ok(Self { limits })
    }
}

/// The access token of a request (identity service API, "Authentication").
fn token(parts: &Parts) -> Result<String> {
    let missing =
        || chappe_web::Error::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", "An access token is needed");
    let text = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) = text.and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing().into());
    }
    Ok(token.to_owned())
}
