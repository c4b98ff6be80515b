//! Homeservers as the identity service of this one needs them: this one itself, and others over federation.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_identity::{Elsewhere, HomeserverError, Homeservers, IdentityServer, MESSAGE_PATH};
use chappe_rooms::PeerError;
use http::Method;
use ruma::{OwnedUserId, ServerName, UserId, api::federation::thirdparty::bind_callback};
use serde_json::Value;

use crate::{Federation, identity_server::Another, network::segment, routes::hand_all_on};

/// Where a homeserver hears of a bound address.
const ONBIND: &str = "/_matrix/federation/v1/3pid/onbind";

fn failure(error: PeerError) -> HomeserverError {
    match error {
        // Too much at once is no answer to the question.
        PeerError::Refused { status: 408 | 429, .. } | PeerError::Unreachable(_) => {
            HomeserverError::Unreachable
        }
        PeerError::Refused { errcode, .. } => HomeserverError::Refused(errcode),
        PeerError::Malformed(why) => HomeserverError::Refused(why),
    }
}

/// A server of the network whose map does not name this one yet says 403, a gateway that does not let this path through yet
/// says 404: there will be another time.
fn not_yet(error: PeerError) -> HomeserverError {
    match error {
        PeerError::Refused { status: 403 | 404, .. } => HomeserverError::Unreachable,
        other => failure(other),
    }
}

impl Federation {
    async fn onbind_here(&self, news: Value) -> Result<(), HomeserverError> {
        let refused = |error: &dyn std::fmt::Display| HomeserverError::Refused(error.to_string());
        let request: Told = serde_json::from_value(news).map_err(|error| refused(&error))?;
        match hand_all_on(self, request.into()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(HomeserverError::Unreachable),
            Err(refusal) if refusal.0.status().is_server_error() => Err(HomeserverError::Unreachable),
            Err(refusal) => Err(refused(&refusal.0)),
        }
    }

    /// Sends the news as it is, signed by the identity service: with the method of the specification, then with the one that
    /// was used before.
    async fn onbind_there(&self, server: &ServerName, news: &Value) -> Result<(), HomeserverError> {
        let network = self.network();
        let mut last = HomeserverError::Unreachable;
        for method in [Method::PUT, Method::POST] {
            let body = Bytes::from(news.to_string());
            let http = network.signed(server, method, ONBIND, body).map_err(failure)?;
            match network.exchange(server, http, network.brief()).await {
                Ok(_) => return Ok(()),
                Err(PeerError::Refused { status: 404 | 405, errcode, .. }) if errcode == "M_UNRECOGNIZED" => {
                    last = HomeserverError::Refused(errcode);
                }
                Err(error) => return Err(failure(error)),
            }
        }
        Err(last)
    }
}

#[derive(serde::Deserialize)]
struct UserInfo {
    sub: OwnedUserId,
}

/// The body of the news, as the endpoint reads it.
#[derive(serde::Deserialize)]
struct Told {
    address: String,
    mxid: OwnedUserId,
    #[serde(default)]
    invites: Vec<bind_callback::v1::ThirdPartyInvite>,
}

impl From<Told> for bind_callback::v1::Request {
    fn from(told: Told) -> Self {
        Self::email(told.address, told.mxid, told.invites)
    }
}

#[async_trait]
impl Homeservers for Federation {
    async fn openid_user(&self, server: &ServerName, token: &str) -> Result<OwnedUserId, HomeserverError> {
        if server == self.network().server() {
            let user = self.accounts().openid_user(token).await;
            return user.map_err(|error| match error {
                chappe_accounts::Error::UnknownToken { .. } => HomeserverError::Refused(error.to_string()),
                _ => HomeserverError::Unreachable,
            });
        }
        let network = self.network();
        let uri = format!("/_matrix/federation/v1/openid/userinfo?access_token={}", segment(token));
        let http = network.signed(server, Method::GET, &uri, Bytes::new()).map_err(failure)?;
        let call = network.brief().insisting().up_to(1 << 16);
        let answer = network.answer(server, http, call).await.map_err(failure)?;
        if !answer.status().is_success() {
            return Err(HomeserverError::Refused(answer.status().to_string()));
        }
        let told: UserInfo = serde_json::from_slice(answer.body())
            .map_err(|error| HomeserverError::Refused(error.to_string()))?;
        Ok(told.sub)
    }

    async fn onbind(&self, user: &UserId, news: Value) -> Result<(), HomeserverError> {
        if user.server_name() == self.network().server() {
            return self.onbind_here(news).await;
        }
        self.onbind_there(user.server_name(), &news).await
    }

    async fn tell(&self, server: &ServerName, message: Value) -> Result<(), HomeserverError> {
        let network = self.network();
        let body = Bytes::from(message.to_string());
        let http = network.signed(server, Method::PUT, MESSAGE_PATH, body).map_err(failure)?;
        let told = network.exchange(server, http, network.brief().up_to(1 << 16)).await;
        told.map(drop).map_err(not_yet)
    }

    fn identity_server(&self, at: Elsewhere) -> Arc<dyn IdentityServer> {
        Arc::new(Another { network: self.network().clone(), at })
    }
}
