//! User-interactive authentication (client-server API, "User-Interactive Authentication API"): sessions bound to
//! one user and one operation.
//!
//! Sessions live in memory, with an end and a bound on their number: requests that open them carry no proof of
//! anything and must not be able to fill the disk. After a restart a client is simply asked again; the only stage
//! that takes a person more than a moment, the e-mail, is kept by `identity` and stays validated.

use async_trait::async_trait;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, UserId,
    api::{
        client::uiaa::{AuthData, AuthFlow, AuthType, ThirdpartyIdCredentials, UiaaInfo, UserIdentifier},
        error::{ErrorKind, StandardErrorBody},
    },
    thirdparty::Medium,
};
use serde_json::Value;

use crate::{Accounts, Error, tokens::sha256, uia_sessions::Progress};

/// What is to be done once authentication is through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    user: Option<OwnedUserId>,
    device: Option<OwnedDeviceId>,
    name: String,
    body: Option<[u8; 32]>,
}

impl Operation {
    /// An operation that has a method and a path, as requested (`"DELETE"`, `"/devices/ABC"`).
    pub fn new(method: &str, path: &str) -> Self {
        Self { user: None, device: None, name: format!("{method} {path}"), body: None }
    }

    /// Of this user, who alone can complete the session.
    #[must_use]
    pub fn by(mut self, user: &UserId) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// From this device, for operations that the user approves on this server's pages (`m.oauth`).
    #[must_use]
    pub fn from_device(mut self, device: &DeviceId) -> Self {
        self.device = Some(device.to_owned());
        self
    }

    /// Whose it is, if anybody's.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.user.as_deref()
    }

    /// Whether it waits for the approval of this user; from which device.
    pub(crate) fn device_of(&self, user: &UserId) -> Option<&DeviceId> {
        self.device.as_deref().filter(|_| self.user.as_deref() == Some(user))
    }

    /// With this body, `auth` aside: the request may not change between stages.
    #[must_use]
    pub fn with_body(mut self, body: &Value) -> Self {
        let mut body = body.clone();
        if let Value::Object(fields) = &mut body {
            fields.remove("auth");
        }
        let mut text = String::new();
        write_sorted(&body, &mut text);
        self.body = Some(sha256(&text));
        self
    }
}

/// Writes a value so that equal values are equal texts, whatever the order of their fields.
fn write_sorted(value: &Value, to: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            to.push('{');
            for (name, value) in fields {
                to.push_str(&Value::from(name.as_str()).to_string());
                to.push(':');
                write_sorted(value, to);
                to.push(',');
            }
            to.push('}');
        }
        Value::Array(items) => {
            to.push('[');
            for item in items {
                write_sorted(item, to);
                to.push(',');
            }
            to.push(']');
        }
        scalar => to.push_str(&scalar.to_string()),
    }
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
    pub params: Option<&'a Value>,
    /// Where the request comes from, for operations of nobody: sessions are counted by it. Empty for those of users.
    pub address: &'a str,
}

/// Authentication is through; the session is used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The stages that were completed.
    pub stages: Vec<AuthType>,
    /// What `m.login.email.identity` proved.
    pub email: Option<ProvedEmail>,
    /// Token of `m.login.registration_token`, to be used up by [`Accounts::create_user`].
    pub registration_token: Option<String>,
}

/// An address whose mail somebody reads, proved by a validation that is good for one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedEmail {
    /// In canonical form.
    pub address: String,
    /// The id of the validation, to be used up together with what is done.
    pub sid: String,
}

/// A session as a page shows it that completes one of its stages outside the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UiaSession {
    /// Who alone can complete it.
    pub user: OwnedUserId,
    /// What is to be done: method and path, such as `DELETE /devices/ABC`.
    pub operation: String,
}

/// What one stage proved.
pub(crate) enum Proved {
    Plain,
    Email(ProvedEmail),
    RegistrationToken(String),
}

impl Accounts {
    /// Takes authentication one step on. [`Error::Authenticate`] holds what the client has to do next;
    /// `Ok` comes once per session: the second of two parallel completions is asked again.
    pub async fn authorize(&self, operation: &Operation, proof: Proof<'_>) -> Result<Verified, Error> {
        let Some(auth) = proof.auth else {
            return self.begin(operation, &proof);
        };
        let session = match auth.session() {
            Some(session) => session.to_owned(),
            None => self.open(operation, &proof),
        };
        let now = self.world().now();
        if let Err(error) = self.inner.sessions.check(now, &session, operation) {
            let Error::NotFound(_) = error else { return Err(error) };
            let fresh = self.open(operation, &proof);
            return Err(challenge(&proof, &fresh, &Progress::default(), Some("this session has ended")));
        }
        // What is approved on this server's pages needs no word of the client, and its impatience is no wrong proof.
        if let Some(stage) = stage_of(auth).filter(|stage| *stage != AuthType::OAuth) {
            if !proof.flows.iter().any(|flow| flow.contains(&stage)) {
                return Err(Error::Forbidden("this kind of authentication is not offered here"));
            }
            match self.judge(operation, &proof, auth, &session).await? {
                Ok(proved) => self.inner.sessions.prove(&session, stage, proved),
                Err(sentence) => {
                    let progress = self.inner.sessions.fail(&session);
                    return Err(challenge(&proof, &session, &progress, Some(sentence)));
                }
            }
        }
        match self.inner.sessions.finish(now, &session, operation, proof.flows) {
            Ok(progress) => Ok(Verified {
                stages: progress.completed,
                email: progress.email,
                registration_token: progress.registration_token,
            }),
            Err(progress) => Err(challenge(&proof, &session, &progress, None)),
        }
    }

    /// Opens a session. Where it is completed on this server's pages alone, a request that comes again without a word of its
    /// session goes on with the one it has.
    fn begin(&self, operation: &Operation, proof: &Proof<'_>) -> Result<Verified, Error> {
        let sessions = &self.inner.sessions;
        let now = self.world().now();
        let by_approval = proof.flows.iter().all(|flow| *flow == [AuthType::OAuth]);
        if by_approval && let Some(session) = sessions.same(now, operation) {
            return match sessions.finish(now, &session, operation, proof.flows) {
                Ok(progress) => {
                    Ok(Verified { stages: progress.completed, email: None, registration_token: None })
                }
                Err(progress) => Err(challenge(proof, &session, &progress, None)),
            };
        }
        let session = self.open(operation, proof);
        Err(challenge(proof, &session, &Progress::default(), None))
    }

    fn open(&self, operation: &Operation, proof: &Proof<'_>) -> String {
        let lifetime = self.config().tokens.uia_seconds.saturating_mul(1000);
        self.inner.sessions.open(self.world(), lifetime, operation, proof.address)
    }

    /// The devices of a user whose requests wait for an approval on this server's pages.
    pub fn waiting_for_approval(&self, user: &UserId) -> Vec<OwnedDeviceId> {
        self.inner.sessions.waiting(self.world().now(), user)
    }

    /// Approves what a device of the user waits for; whether there was anything.
    pub fn approve(&self, user: &UserId, device: &DeviceId) -> bool {
        self.inner.sessions.approve(self.world().now(), user, device)
    }

    /// A session of a user that is under way; `None` also for those that are nobody's in particular.
    pub fn uia_session(&self, session: &str) -> Option<UiaSession> {
        let operation = self.inner.sessions.operation(self.world().now(), session)?;
        Some(UiaSession { user: operation.user?, operation: operation.name })
    }

    /// Completes the stage `m.login.sso` of a session, for the user who has just proved who they are and agreed; `false` when
    /// the session has ended or is another user's.
    pub fn complete_sso(&self, session: &str, user: &UserId) -> bool {
        let mine = self.uia_session(session).is_some_and(|found| found.user == *user);
        if mine {
            self.inner.sessions.prove(session, AuthType::Sso, Proved::Plain);
        }
        mine
    }

    /// Judges one stage; the inner error is a sentence for the user.
    async fn judge(
        &self,
        operation: &Operation,
        proof: &Proof<'_>,
        auth: &AuthData,
        session: &str,
    ) -> Result<Result<Proved, &'static str>, Error> {
        Ok(match auth {
            AuthData::Dummy(_) | AuthData::Terms(_) => Ok(Proved::Plain),
            AuthData::Password(password) => {
                let Some(user) = &operation.user else {
                    return Ok(Err("a password proves nothing here"));
                };
                if self.user_of(&password.identifier).await?.as_ref() != Some(user) {
                    return Err(Error::Forbidden("this is another user's request"));
                }
                if !self.inner.guesses.may(user, self.world().now()) {
                    return Ok(Err("too many wrong passwords, try again in an hour"));
                }
                match self.verify_password(user, &password.password).await {
                    Ok(()) => Ok(Proved::Plain),
                    Err(Error::Forbidden(sentence)) => {
                        self.inner.guesses.wrong(user);
                        Err(sentence)
                    }
                    Err(error) => return Err(error),
                }
            }
            AuthData::RegistrationToken(data) => {
                if self.token_usable(&data.token, Some(session)).await? {
                    Ok(Proved::RegistrationToken(data.token.clone()))
                } else {
                    Err("invalid registration token")
                }
            }
            AuthData::EmailIdentity(data) => match proof.email {
                Some(judge) => judge
                    .validated(&data.thirdparty_id_creds)
                    .await?
                    .map(|address| {
                        Proved::Email(ProvedEmail { address, sid: data.thirdparty_id_creds.sid.to_string() })
                    })
                    .ok_or("this e-mail address was not validated yet"),
                None => Err("e-mail addresses are not validated here"),
            },
            // It is completed by a page alone, not by saying so.
            other if stage_of(other) == Some(AuthType::Sso) => {
                if self.inner.sessions.has(session, &AuthType::Sso) {
                    Ok(Proved::Plain)
                } else {
                    Err("log in with your identity provider first")
                }
            }
            _ => Err("this kind of authentication is not supported"),
        })
    }

    /// The local user that a log-in names, whatever way it does.
    pub async fn user_of(&self, identifier: &UserIdentifier) -> Result<Option<OwnedUserId>, Error> {
        match identifier {
            UserIdentifier::Matrix(named) => Ok(self.local_user(&named.user).ok()),
            UserIdentifier::Email(named) => {
                let address = named.address.trim().to_lowercase();
                self.user_by_threepid(&Medium::Email, &address).await
            }
            UserIdentifier::Msisdn(named) => self.user_by_threepid(&Medium::Msisdn, &named.number).await,
            _ => Ok(None),
        }
    }
}

/// The stage that a client means; ruma has no form for `m.login.sso`, which has no data.
fn stage_of(auth: &AuthData) -> Option<AuthType> {
    auth.auth_type().map(|stage| AuthType::from(stage.as_str()))
}

fn challenge(proof: &Proof<'_>, session: &str, progress: &Progress, problem: Option<&str>) -> Error {
    let mut info = UiaaInfo::new(proof.flows.iter().cloned().map(AuthFlow::new).collect());
    info.completed.clone_from(&progress.completed);
    info.session = Some(session.to_owned());
    let params = proof.params.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    info.params = serde_json::value::to_raw_value(&params).ok();
    info.auth_error =
        problem.map(|text| Box::new(StandardErrorBody::new(ErrorKind::Forbidden, text.to_owned())));
    Error::Authenticate(Box::new(info))
}
