//! `POST /account/3pid`: binds an address that was proved by mail, as clients did before `/account/3pid/add` (deprecated
//! by the specification).
//!
//! The specification asks for no authentication beyond the token here. This server asks for the password all the same, as
//! for `add`: an address opens the way to a new password, so a stolen token must not be enough. No other identity server
//! is asked; a session of one is unknown here.

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_identity::{Identity, Purpose};
use chappe_web::{Error, Payload};
use http::StatusCode;
use ruma::{OwnedClientSecret, OwnedSessionId, api::client::uiaa::AuthData, thirdparty::Medium};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Config,
    error::Result,
    requester::Acting,
    uia::{Uia, identify},
};

#[derive(Deserialize)]
struct Body {
    /// The older name is of version r0.0 of the specification.
    #[serde(alias = "threePidCreds")]
    three_pid_creds: Credentials,
    auth: Option<AuthData>,
}

/// Where the session was opened and the token for that place may stand there too; they say nothing here.
#[derive(Deserialize)]
struct Credentials {
    #[serde(alias = "clientSecret")]
    client_secret: OwnedClientSecret,
    sid: OwnedSessionId,
}

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    State(identity): State<Identity>,
    State(config): State<Arc<Config>>,
    requester: Acting,
    Payload(mut body): Payload<Value>,
) -> Result<Json<Value>> {
    if !config.threepid_changes {
        return Err(Error::forbidden("Addresses are not changed by users on this server").into());
    }
    identify(&mut body);
    let Body { three_pid_creds: Credentials { client_secret, sid }, auth } =
        Body::deserialize(&body).map_err(|error| Error::bad_json(error.to_string()))?;
    uia.ask(&requester, ("POST", "/account/3pid"), &body, auth.as_ref()).await?;
    let proof = match identity.validated(Purpose::AddToAccount, &sid, &client_secret).await {
        Err(chappe_identity::Error::NoSession | chappe_identity::Error::NotValidated) => {
            let sentence = "This session proves no address here";
            return Err(Error::new(StatusCode::FORBIDDEN, "M_THREEPID_AUTH_FAILED", sentence).into());
        }
        proof => proof?,
    };
    let proved = (proof.validated_at, Some(proof.sid.as_str()));
    accounts.add_threepid(requester.user(), &Medium::Email, proof.address.as_str(), proved).await?;
    Ok(Json(json!({})))
}
