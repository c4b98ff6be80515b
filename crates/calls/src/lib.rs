//! Calls of many people: access to a LiveKit server (SFU) for those who prove who they are (MSC4195).
//!
//! Users of this server may begin calls, those of others take part in calls that have begun: a LiveKit room is made here, and
//! the SFU must not make any by itself (`room.auto_create: false`).

mod config;
mod delegated;
mod jwt;
mod sfu;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use chappe_identity::{HomeserverError, Homeservers};
use chappe_world::World;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde_json::json;

pub use self::{
    config::Config,
    delegated::{Leave, Leaves},
};
use self::{delegated::Delegated, jwt::Signer};

/// The slot of a call where the client does not say one.
const ROOM_CALL: &str = "m.call#ROOM";

/// What [`Calls`] is built from.
pub struct Deps {
    /// The outside world.
    pub world: World,
    /// The name of this server.
    pub server: OwnedServerName,
    /// Whose OpenID tokens are.
    pub homeservers: Arc<dyn Homeservers>,
    /// The delayed events of its users.
    pub leaves: Arc<dyn Leaves>,
    /// The secret that goes with `api_key`.
    pub api_secret: String,
}

/// Access to the SFU: a handle, clones share it.
#[derive(Clone)]
pub struct Calls(Arc<Inner>);

struct Inner {
    world: World,
    server: OwnedServerName,
    homeservers: Arc<dyn Homeservers>,
    leaves: Arc<dyn Leaves>,
    delegated: Mutex<Delegated>,
    signer: Signer,
    config: Config,
}

/// An OpenID token as its server gave it.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    /// The server that knows whose it is.
    pub server: &'a ServerName,
    /// The token.
    pub token: &'a str,
}

/// Who takes part, as far as the client says.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// A device, as older clients say it (`/sfu/get`).
    Device(&'a str),
    /// A member of a slot (`/get_token`).
    Slot {
        /// The slot, such as `m.call#ROOM`.
        slot: &'a str,
        /// Who the client says it is.
        user: &'a UserId,
        /// The device.
        device: &'a str,
        /// The member's id.
        id: &'a str,
    },
}

/// What lets somebody into a call.
pub struct Access {
    /// The URL of the SFU.
    pub url: String,
    /// The token that it takes.
    pub jwt: String,
}

/// Why nobody is let in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is nobody's, or somebody else's: 401 `M_UNAUTHORIZED`.
    #[error("the OpenID token does not say that you are who you say")]
    Unauthorized,
    /// The server that gave the token was not reached: 502 `M_UNKNOWN`.
    #[error("the server that gave the OpenID token was not reached")]
    HomeserverUnreachable,
    /// The delayed leave waits for less than this server needs: 400 `M_BAD_JSON`.
    #[error("`delay_timeout` is too short")]
    TooShort,
    /// The delayed leave is on another server: 400 `M_UNSUPPORTED`.
    #[error("delayed events of other servers are not looked after here")]
    Elsewhere,
    /// The SFU was not reached or did not do what it was asked to: 502 `M_UNKNOWN`.
    #[error("the call could not be begun")]
    Sfu(String),
}

impl Calls {
    /// Ties the SFU to those who may use it.
    pub fn new(deps: Deps, config: Config) -> Self {
        let Deps { world, server, homeservers, leaves, api_secret } = deps;
        let (signer, delegated) = (Signer::new(&config.api_key, &api_secret), Mutex::default());
        Self(Arc::new(Inner { world, server, homeservers, leaves, delegated, signer, config }))
    }

    /// Lets `user` into the call of a room that it is joined to. The call begins if need be and if the user is one of this
    /// server.
    pub async fn access(&self, user: &UserId, room: &str, member: Member<'_>) -> Result<Access, Error> {
        let (room, identity) = place(user, room, member)?;
        if user.server_name() == self.0.server {
            let now = self.0.world.now();
            sfu::create_room(&self.0.world, &self.0.config, &self.0.signer.for_api(now), &room).await?;
        }
        let jwt = self.0.signer.for_member(&room, &identity, self.0.world.now());
        Ok(Access { url: self.0.config.url.clone(), jwt })
    }

    /// Looks after the delayed leave of somebody who is or will be in the call of a room; in the place of one that was looked
    /// after before.
    pub fn look_after(
        &self,
        user: &UserId,
        room: &str,
        member: Member<'_>,
        leave: Leave,
    ) -> Result<(), Error> {
        let place = place(user, room, member)?;
        self.0.delegated.lock().watch(place, user, leave, self.0.world.instant());
        Ok(())
    }

    /// Refuses who is of another server: their delayed events are not known here.
    pub fn check_local(&self, user: &UserId) -> Result<(), Error> {
        if user.server_name() == self.0.server { Ok(()) } else { Err(Error::Elsewhere) }
    }

    /// Whose a token is. A server speaks for its own users alone.
    pub async fn prove(&self, proof: Proof<'_>) -> Result<OwnedUserId, Error> {
        match self.0.homeservers.openid_user(proof.server, proof.token).await {
            Ok(user) if user.server_name() == proof.server => Ok(user),
            Ok(_) | Err(HomeserverError::Refused(_)) => Err(Error::Unauthorized),
            Err(HomeserverError::Unreachable) => Err(Error::HomeserverUnreachable),
        }
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Calls of {}", self.0.server)
    }
}

/// The room of the SFU and who somebody is in it.
fn place(user: &UserId, room: &str, member: Member<'_>) -> Result<(String, String), Error> {
    let (slot, identity) = match member {
        Member::Device(device) => (ROOM_CALL, format!("{user}:{device}")),
        Member::Slot { user: claimed, .. } if *claimed != *user => return Err(Error::Unauthorized),
        Member::Slot { slot, device, id, .. } => (slot, hashed(&[user.as_str(), device, id])),
    };
    Ok((hashed(&[room, slot]), identity))
}

/// A name for the SFU that tells nothing: SHA-256 of a list in JSON, in unpadded Base64.
fn hashed(parts: &[&str]) -> String {
    STANDARD_NO_PAD.encode(digest(&SHA256, json!(parts).to_string().as_bytes()))
}
