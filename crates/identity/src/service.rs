//! The identity service of this server: whose an address is, who waits for whom, and what others are told of it.
//!
//! Implements the logic of the identity service API. Who else is needed, the homeservers, is behind [`Homeservers`].

mod associations;
mod info;
mod invites;
mod members;
mod network;
mod news;
mod peppers;

use std::sync::Arc;

use async_trait::async_trait;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};
use chappe_accounts::Accounts;
use chappe_rules::build::{self, SigningKey};
use chappe_store::Store;
use chappe_world::World;
use parking_lot::Mutex;
use ruma::{CanonicalJsonObject, ClientSecret, OwnedServerName, OwnedUserId, ServerName, SessionId, UserId};
use serde_json::Value;
use tokio::sync::Notify;

pub use self::{
    associations::SignedAssociation,
    info::{Info, InternalInfo},
    invites::{Invitation, PublicKey, StoredInvite},
    members::OpenIdToken,
    network::{ForeignInvite, Message},
    peppers::lookup_hash,
};
use crate::{Config, Email, Error, Identity, Purpose, throttle::Throttle};

/// How often an operation starts again when another writer was first.
const TRIES: usize = 20;
/// The one medium there is: nothing here sends text messages.
pub(crate) const EMAIL: &str = "email";

/// Base64 as clients and servers write it: either alphabet is decoded by turning one into the other first.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a homeserver did not do what the identity service asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HomeserverError {
    /// It said no, and will again.
    #[error("the homeserver refused: {0}")]
    Refused(String),
    /// It was not reached, or is in trouble: try again later.
    #[error("the homeserver was not reached")]
    Unreachable,
}

/// Homeservers, this one included, as the identity service needs them; crate `federation` implements it.
#[async_trait]
pub trait Homeservers: Send + Sync {
    /// Whose an OpenID token is, in the words of the server that gave it.
    async fn openid_user(&self, server: &ServerName, token: &str) -> Result<OwnedUserId, HomeserverError>;

    /// `3pid/onbind`: tells the user's homeserver of a bound address and of the invitations that waited for it.
    async fn onbind(&self, user: &UserId, news: Value) -> Result<(), HomeserverError>;

    /// Gives another server of this network a [`Message`].
    async fn tell(&self, server: &ServerName, message: Value) -> Result<(), HomeserverError>;

    /// Another identity server, at a host name with an optional port.
    fn identity_server(&self, at: Elsewhere) -> Arc<dyn IdentityServer>;
}

/// Where another identity server is.
#[derive(Clone)]
pub struct Elsewhere {
    /// Its host name, with a port where it is not 443.
    pub host: String,
    /// Whether it is one of this network's own: it may then be inside the permitted private ranges.
    pub known: bool,
    /// The user's access token for it; empty where this homeserver speaks for itself.
    pub token: String,
}

/// An identity server, this one or another, as a user's homeserver uses it in the user's name.
#[async_trait]
pub trait IdentityServer: Send + Sync {
    /// Whose an address is.
    async fn lookup(&self, address: &Email) -> Result<Option<OwnedUserId>, Error>;

    /// Which homeserver serves an address (`info`); `None`: it knows of none.
    async fn homeserver_of(&self, address: &Email) -> Result<Option<OwnedServerName>, Error>;

    /// Keeps an invitation and mails it. [`Error::Bound`] when the address is somebody's.
    async fn store_invite(&self, invitation: Invitation) -> Result<StoredInvite, Error>;

    /// Binds an address that a session validated to a user of this homeserver; gives the address.
    async fn bind(&self, sid: &SessionId, secret: &ClientSecret, user: &UserId) -> Result<Email, Error>;

    /// Takes an association of a user of this homeserver back, in the homeserver's own name; `false` when there is no
    /// support for it.
    async fn unbind(&self, address: &Email, user: &UserId) -> Result<bool, Error>;
}

/// Where the servers of a network give each other [`Message`]s; not of the specification.
pub const MESSAGE_PATH: &str = "/_matrix/federation/unstable/chappe/identity";

/// What [`IdentityService`] is built from.
pub struct ServiceDeps {
    /// Who may join.
    pub identity: Identity,
    /// Users of this server.
    pub accounts: Accounts,
    /// This server's key: the identity service signs with one that follows from it.
    pub key: Arc<SigningKey>,
    /// Homeservers.
    pub homeservers: Arc<dyn Homeservers>,
}

/// The identity service: a handle, clones share it.
#[derive(Clone)]
pub struct IdentityService {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    accounts: Accounts,
    key: SigningKey,
    homeservers: Arc<dyn Homeservers>,
    per_sender: Throttle<OwnedUserId>,
    /// The other servers of the network when they were looked at last.
    greeted: Mutex<Vec<OwnedServerName>>,
    /// Wakes the worker: an address is to be bound, or somebody is to be told.
    work: Notify,
}

impl IdentityService {
    /// The identity service, not yet at work.
    pub fn new(deps: ServiceDeps) -> Self {
        let ServiceDeps { identity, accounts, key, homeservers } = deps;
        let per_sender = Throttle::default();
        let key = key.derived(build::Purpose::IdentityService);
        let (greeted, work) = (Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { identity, accounts, key, homeservers, per_sender, greeted, work }) }
    }

    /// Who may join, and validations of addresses.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The section `[identity]` as it is now.
    pub fn config(&self) -> Arc<Config> {
        self.inner.identity.config()
    }

    /// Whether the address of a new account is bound to it.
    pub fn binds_new_accounts(&self) -> bool {
        self.config().service.bind_new_accounts.unwrap_or(self.inner.identity.names_accounts())
    }

    /// Whether a client means this identity service by `id_server`: a host name, with a port where it is not 443.
    pub fn is_called(&self, id_server: &str) -> bool {
        self.names().iter().any(|name| name.eq_ignore_ascii_case(id_server))
    }

    /// The names under which clients and homeservers know this identity service.
    pub fn names(&self) -> Vec<String> {
        let site = &self.inner.identity.inner.site;
        let base = url::Url::parse(&site.public_baseurl).ok();
        let own = base.and_then(|url| {
            let host = url.host_str()?.to_owned();
            Some(url.port().map_or(host.clone(), |port| format!("{host}:{port}")))
        });
        let configured = self.config().service.names.clone();
        configured.into_iter().chain(own).chain([site.server_name.to_string()]).collect()
    }

    /// The identity server that `requester` names, with the requester's access token for it.
    ///
    /// [`Error::Unauthorized`] when the token is not the requester's, [`Error::TermsNotSigned`] before the policies are
    /// accepted, [`Error::NotTrusted`] when the server is none that is talked with.
    pub async fn server_for(
        &self,
        requester: &UserId,
        id_server: &str,
        token: &str,
    ) -> Result<Arc<dyn IdentityServer>, Error> {
        if self.is_called(id_server) {
            if self.member_in_good_standing(token).await? != *requester {
                return Err(Error::Unauthorized("This access token is not yours"));
            }
            return Ok(Arc::new(self.clone()));
        }
        Ok(self.inner.homeservers.identity_server(self.elsewhere(id_server, token)?))
    }

    /// The identity server of that name, for what the homeserver does by itself.
    pub fn server_without_token(&self, id_server: &str) -> Result<Arc<dyn IdentityServer>, Error> {
        if self.is_called(id_server) {
            return Ok(Arc::new(self.clone()));
        }
        Ok(self.inner.homeservers.identity_server(self.elsewhere(id_server, "")?))
    }

    /// An identity server that is not this one, if it is one that is talked with.
    fn elsewhere(&self, id_server: &str, token: &str) -> Result<Elsewhere, Error> {
        const WRONG: Error = Error::Invalid("id_server is a host name with an optional port");
        let url = url::Url::parse(&format!("https://{id_server}/")).map_err(|_| WRONG)?;
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(WRONG)?;
        if !plain || id_server.contains(['/', '\\', '?', '#', '@']) {
            return Err(WRONG);
        }
        let config = &self.config().service;
        let known = config.servers.iter().any(|name| name.eq_ignore_ascii_case(id_server));
        if !known && !config.other_servers {
            return Err(Error::NotTrusted);
        }
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Elsewhere { host, known, token: token.to_owned() })
    }

    fn store(&self) -> &Store {
        &self.inner.identity.inner.store
    }

    fn world(&self) -> &World {
        &self.inner.identity.inner.world
    }

    fn server(&self) -> &OwnedServerName {
        &self.inner.identity.inner.site.server_name
    }

    /// A document with the signature of this identity service.
    fn signed(&self, mut document: CanonicalJsonObject) -> CanonicalJsonObject {
        self.inner.key.sign_json(self.server(), &mut document);
        document
    }
}

#[async_trait]
impl IdentityServer for IdentityService {
    async fn lookup(&self, address: &Email) -> Result<Option<OwnedUserId>, Error> {
        Ok(self.association(address).await?.map(|association| association.user))
    }

    async fn homeserver_of(&self, address: &Email) -> Result<Option<OwnedServerName>, Error> {
        Ok(self.info(address).await?.map(|info| info.hs))
    }

    async fn store_invite(&self, invitation: Invitation) -> Result<StoredInvite, Error> {
        self.store_invite(invitation).await
    }

    async fn bind(&self, sid: &SessionId, secret: &ClientSecret, user: &UserId) -> Result<Email, Error> {
        self.bind(sid, secret, user).await?;
        Ok(self.inner.identity.validated(Purpose::Bind, sid, secret).await?.address)
    }

    async fn unbind(&self, address: &Email, user: &UserId) -> Result<bool, Error> {
        self.unbind(address, user).await.map(|_| true)
    }
}

/// Unpadded base64 of a public key, as this service writes it.
fn written(key: &[u8]) -> String {
    STANDARD_NO_PAD.encode(key)
}

/// 32 bytes from base64 in either alphabet.
fn thirty_two(text: &str) -> Option<[u8; 32]> {
    if text.len() > 64 {
        return None;
    }
    let standard = text.replace('-', "+").replace('_', "/");
    LENIENT.decode(standard).ok()?.try_into().ok()
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Elsewhere({})", self.host)
    }
}

impl std::fmt::Debug for ServiceDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceDeps")
    }
}

impl std::fmt::Debug for IdentityService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdentityService of {}", self.server())
    }
}
