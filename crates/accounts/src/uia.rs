//! User-interactive authentication (client-server API §5.5): sessions bound to one user and one operation.

use async_trait::async_trait;
use ruma::{
    OwnedUserId, UserId,
    api::client::uiaa::{AuthData, AuthType, ThirdpartyIdCredentials},
};

use crate::{Accounts, Error, soon};

/// What is to be done once authentication is through.
#[derive(Clone, Debug)]
pub struct Operation {
    pub(crate) user: Option<OwnedUserId>,
    pub(crate) name: String,
    pub(crate) body: Option<[u8; 32]>,
}

impl Operation {
    /// An operation that has a method and a path, as requested (`"DELETE"`, `"/devices/ABC"`).
    pub fn new(method: &str, path: &str) -> Self {
        Self { user: None, name: format!("{method} {path}"), body: None }
    }
    /// Of this user, who alone can complete the session.
    #[must_use]
    pub fn by(mut self, user: &UserId) -> Self {
        self.user = Some(user.to_owned());
        self
    }
    /// With this body, `auth` aside: the request may not change between stages.
    #[must_use]
    pub fn with_body(mut self, body: &serde_json::Value) -> Self { self }
}

/// Whether an e-mail validation session was completed; implemented by `identity`.
#[async_trait]
pub trait EmailStage: Send + Sync {
    /// The validated address, in canonical form; `None` while the user has not followed the link.
    async fn validated(&self, credentials: &ThirdpartyIdCredentials) -> Result<Option<String>, Error>;
}

/// What the client sent and who can judge it.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    /// The `auth` of the request.
    pub auth: Option<&'a AuthData>,
    /// Acceptable flows, each a list of stages, best first.
    pub flows: &'a [Vec<AuthType>],
    /// Judge of `m.login.email.identity`.
    pub email: Option<&'a dyn EmailStage>,
    /// Parameters shown to the client, by stage (e.g. the policies of `m.login.terms`).
    pub params: Option<&'a serde_json::Value>,
}

/// Authentication is through; the session is used up.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// The stages that were completed.
    pub stages: Vec<AuthType>,
    /// Validated address of `m.login.email.identity`.
    pub email: Option<String>,
    /// Token of `m.login.registration_token`, to be used up by [`Accounts::create_user`].
    pub registration_token: Option<String>,
}

#[derive(Default)]
pub(crate) struct Sessions {}

impl Accounts {
    /// Takes authentication one step on. [`Error::Authenticate`] holds what the client has to do next;
    /// `Ok` comes once per session: the second of two parallel completions is asked again.
    pub async fn authorize(&self, operation: &Operation, proof: Proof<'_>) -> Result<Verified, Error> { soon() }
}
