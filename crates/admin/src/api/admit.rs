//! Who may call: server administrators, by the access token of one of their devices. Asked once, in front of every route.

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chappe_accounts::Requester;
use chappe_rooms::{Actor, Standing};
use http::{HeaderMap, Method, header, request::Parts};
use ruma::UserId;

use super::{Api, Error, Result};

/// The administrator behind a request.
#[derive(Clone, Debug)]
pub(crate) struct Administrator(Requester);

impl Administrator {
    /// Who.
    pub(crate) fn user(&self) -> &UserId {
        &self.0.user_id
    }

    /// The administrator acting in a room as itself.
    pub(crate) fn actor(&self) -> Actor {
        let device = self.0.device_id.clone();
        Actor { device, standing: Standing::Administrator, ..Actor::user(&self.0.user_id) }
    }

    /// The administrator looking into a room that it need not be in.
    pub(crate) fn overseer(&self) -> Actor {
        Actor { standing: Standing::Overseer, ..self.actor() }
    }

    /// Refuses what administrators must not do to themselves.
    pub(crate) fn not_oneself(&self, user: &UserId) -> Result<()> {
        if self.user() == user {
            return Err(chappe_web::Error::forbidden("You cannot do this to yourself").into());
        }
        Ok(())
    }
}

/// Refuses whoever is no administrator: 401 without a good token, 403 without the right. Suspended ones may look.
pub(super) async fn admit(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match administrator(&api, request.method(), request.headers()).await {
        Ok(administrator) => {
            request.extensions_mut().insert(administrator);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn administrator(api: &Api, method: &Method, headers: &HeaderMap) -> Result<Administrator> {
    let requester = api.accounts.authenticate(token(headers)?).await?;
    requester.must_be_admin()?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        requester.may_act()?;
    }
    Ok(Administrator(requester))
}

/// Tokens in the query string are not taken here: they end up in the logs of proxies.
fn token(headers: &HeaderMap) -> Result<&str, chappe_web::Error> {
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = text.and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
    token.ok_or_else(chappe_web::Error::missing_token)
}

impl<S: Send + Sync> FromRequestParts<S> for Administrator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let found = parts.extensions.get::<Self>().cloned();
        Ok(found.ok_or_else(chappe_web::Error::missing_token)?)
    }
}
