//! A log-in on its way: to the provider, back again, and once only.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chappe_accounts::UiaSession;
use ring::digest::{SHA256, digest};
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::{
    ClientUrl, Sso, SsoError,
    leave::LONGEST_COOKIE,
    people::standing,
    provider::{Provider, Question},
    seal::same,
};
use crate::Email;

/// How long somebody may take at the provider, in milliseconds.
const LONGEST_MS: u64 = 15 * 60_000;
/// How long somebody may think about an approval, in milliseconds.
const APPROVAL_MS: u64 = 5 * 60_000;
/// Bytes of what a provider sends back in a parameter.
const LONGEST_PARAMETER: usize = 4096;
/// What a cookie's seal is for.
const COOKIE: &str = "cookie";
/// What an approval's seal is for.
const TICKET: &str = "ticket";
/// How long a browser may take from the callback to the page that it wanted, in milliseconds.
const PASS_MS: u64 = 60_000;
/// What a pass's seal is for.
const PASS: &str = "pass";
/// Letters of the state that are in the cookie's name, so that several log-ins of one browser do not meet.
const NAMED: usize = 8;

/// What somebody goes to the provider for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// To log in to the client at this address.
    LogIn {
        /// Where the token goes.
        client: String,
    },
    /// To prove once more who they are (user-interactive authentication, `m.login.sso`).
    Confirm {
        /// The session.
        session: String,
    },
    /// To use pages of this server.
    Browse {
        /// Path and query of the page that takes them in.
        page: String,
        /// Who has to prove once more who they are; anybody may log in where this is not said.
        user: Option<OwnedUserId>,
    },
}

impl Errand {
    /// Whether the provider has to ask anew, however long somebody is logged in there.
    fn is_proof(&self) -> bool {
        matches!(self, Self::Confirm { .. } | Self::Browse { user: Some(_), .. })
    }
}

/// How somebody is sent to the provider.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// To get a new account there, if the provider knows how to do that (MSC3824).
    pub register: bool,
    /// Whom the provider may expect.
    pub login_hint: Option<Email>,
}

/// Off to the provider.
#[derive(Clone, Debug)]
pub struct Departure {
    /// Where the browser goes.
    pub location: String,
    /// What it keeps meanwhile.
    pub cookie: Cookie,
}

/// A cookie to be set.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its value; empty takes the cookie away.
    pub value: String,
    /// Seconds that it is kept.
    pub seconds: u64,
}

/// What the provider sends back (OpenID Connect Core 1.0 §3.1.2.5, RFC 9207).
#[derive(Clone, Default, Deserialize)]
pub struct Return {
    /// What it said before, repeated.
    #[serde(default)]
    pub state: String,
    /// Good for a token, once.
    #[serde(default)]
    pub code: Option<String>,
    /// Why there is no code.
    #[serde(default)]
    pub error: Option<String>,
    /// Who sends it.
    #[serde(default)]
    pub iss: Option<String>,
}

/// Who came back, and for what.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A user may log in.
    LoggedIn {
        /// Who.
        user: OwnedUserId,
        /// Where the token goes.
        client: ClientUrl,
        /// Whether it may go there without a question.
        trusted: bool,
        /// What the browser keeps to end its session with the provider later.
        session: Option<Cookie>,
    },
    /// A user proved who they are; now they are to be asked whether they agree.
    Confirmed {
        /// What they are asked about.
        session: UiaSession,
        /// With it, agreeing is [`Sso::approve`].
        ticket: String,
    },
    /// A user goes on to a page of this server.
    Browsing {
        /// Path and query of the page.
        page: String,
        /// What the browser shows there, once: see [`Sso::admit`].
        pass: Cookie,
        /// What the browser keeps to end its session with the provider later.
        session: Option<Cookie>,
    },
}

/// Who may use pages of this server with the browser that shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pass {
    /// Who.
    pub user: OwnedUserId,
    /// What their log-ins hung on ([`chappe_accounts::Accounts::log_in_mark`]).
    pub mark: [u8; 32],
    /// Whether they were asked for, and have proved who they are just now.
    pub proved: bool,
    /// Told apart by this.
    id: String,
    ends: u64,
}

/// What the browser keeps: everything about a log-in on its way.
#[derive(Serialize, Deserialize)]
struct Pending {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    ends: u64,
    errand: Errand,
}

/// An approval that somebody was asked for.
#[derive(Serialize, Deserialize)]
struct Ticket {
    session: String,
    user: OwnedUserId,
    ends: u64,
}

impl Sso {
    /// Sends somebody to a provider.
    pub async fn depart(
        &self,
        provider: &str,
        errand: Errand,
        manner: &Manner,
    ) -> Result<Departure, SsoError> {
        let provider = self.provider(provider)?;
        let world = self.world();
        let pending = Pending {
            provider: provider.config.id.clone(),
            state: world.token(43),
            nonce: world.token(43),
            verifier: world.token(64),
            ends: world.now() + LONGEST_MS,
            errand,
        };
        let location = self.location(provider, &pending, manner).await?;
        let value = self.seal().close(COOKIE, &pending).ok_or(SsoError::Ended)?;
        if value.len() > LONGEST_COOKIE {
            return Err(SsoError::TooLong);
        }
        let cookie = Cookie { name: self.cookie_name(&pending.state), value, seconds: LONGEST_MS / 1000 };
        Ok(Departure { location, cookie })
    }

    /// The authorization request (OpenID Connect Core 1.0 §3.1.2.1, RFC 7636).
    async fn location(
        &self,
        provider: &Provider,
        pending: &Pending,
        manner: &Manner,
    ) -> Result<String, SsoError> {
        let metadata = provider.metadata().await?;
        let config = &provider.config;
        let challenge = BASE64.encode(digest(&SHA256, pending.verifier.as_bytes()));
        let mut location = metadata.authorization.clone();
        let mut query = location.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &config.client_id)
            .append_pair("redirect_uri", self.callback())
            .append_pair("scope", &config.scopes.join(" "))
            .append_pair("state", &pending.state)
            .append_pair("nonce", &pending.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if !config.acr_values.is_empty() {
            query.append_pair("acr_values", &config.acr_values.join(" "));
        }
        if let Some(hint) = &manner.login_hint {
            query.append_pair("login_hint", hint.as_str());
        }
        if pending.errand.is_proof() {
            query.append_pair("prompt", "login").append_pair("max_age", "0");
        } else if manner.register && metadata.creates {
            query.append_pair("prompt", "create");
        }
        drop(query);
        Ok(location.into())
    }

    /// The cookie of whoever comes back with this state.
    pub fn cookie_name(&self, state: &str) -> String {
        let named: String = state.chars().take(NAMED).collect();
        self.cookie_name_for("way", &named)
    }

    /// The cookie that one thing is kept in.
    pub(super) fn cookie_name_for(&self, kind: &str, named: &str) -> String {
        let named: String = named.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        // With this prefix no other host of the domain can set it.
        let prefix = if self.is_secure() { "__Host-" } else { "" };
        format!("{prefix}chappe_sso_{kind}_{named}")
    }

    /// Takes in somebody who comes back from a provider, with the cookie of that name.
    pub async fn arrive(&self, back: &Return, cookie: Option<&str>) -> Result<Arrival, SsoError> {
        let pending: Pending =
            cookie.and_then(|value| self.seal().open(COOKIE, value)).ok_or(SsoError::Ended)?;
        let own = same(&pending.state, &back.state);
        let now = self.world().now();
        if !own || pending.ends <= now || !self.used().first(&pending.state, pending.ends, now) {
            return Err(SsoError::Ended);
        }
        let provider = self.provider(&pending.provider)?;
        // One provider of several could pass on what another one answered (RFC 9700, section 4.4).
        let may_be_silent = self.providers().count() == 1 && !provider.metadata().await?.names_itself;
        if !back.iss.as_ref().map_or(may_be_silent, |issuer| *issuer == provider.config.issuer) {
            return Err(SsoError::Ended);
        }
        if back.error.is_some() {
            return Err(SsoError::Cancelled);
        }
        let code = back.code.as_deref().filter(|code| (1..=LONGEST_PARAMETER).contains(&code.len()));
        let departed = pending.ends.saturating_sub(LONGEST_MS);
        let fresh = pending.errand.is_proof().then_some(departed);
        let question = Question {
            code: code.ok_or(SsoError::Cancelled)?,
            verifier: &pending.verifier,
            nonce: &pending.nonce,
            fresh,
        };
        let vouched = provider.vouch(&question).await?;
        match pending.errand {
            Errand::LogIn { client } => {
                let client = ClientUrl::parse(&client).map_err(SsoError::Client)?;
                let session = self.session(provider, &vouched.id_token);
                let user = self.account(provider, vouched).await?;
                let trusted = self.trusts(&client);
                Ok(Arrival::LoggedIn { user, client, trusted, session })
            }
            Errand::Confirm { session } => {
                let user = self.linked(provider, &vouched).await?;
                standing(&self.accounts().user(&user).await?.ok_or(SsoError::NotLinked)?)?;
                self.confirmed(session, user)
            }
            Errand::Browse { page, user: asked } => {
                let session = self.session(provider, &vouched.id_token);
                let (user, proved) = match asked {
                    Some(asked) if self.linked(provider, &vouched).await? != asked => {
                        return Err(SsoError::NotLinked);
                    }
                    Some(asked) => (asked, true),
                    None => (self.account(provider, vouched).await?, false),
                };
                standing(&self.accounts().user(&user).await?.ok_or(SsoError::NotLinked)?)?;
                let pass = self.pass(user, proved).await?;
                Ok(Arrival::Browsing { page, pass, session })
            }
        }
    }

    async fn pass(&self, user: OwnedUserId, proved: bool) -> Result<Cookie, SsoError> {
        let mark = self.accounts().log_in_mark(&user).await?;
        let (id, ends) = (self.world().token(43), self.world().now() + PASS_MS);
        let pass = Pass { user, mark, proved, id, ends };
        let value = self.seal().close(PASS, &pass).ok_or(SsoError::Ended)?;
        Ok(Cookie { name: self.pass_cookie_name(), value, seconds: PASS_MS / 1000 })
    }

    /// The cookie that holds a pass.
    pub fn pass_cookie_name(&self) -> String {
        self.cookie_name_for("pass", "")
    }

    /// Takes in the browser that shows a pass. Once.
    pub fn admit(&self, pass: &str) -> Result<Pass, SsoError> {
        let open: Pass = self.seal().open(PASS, pass).ok_or(SsoError::Ended)?;
        let now = self.world().now();
        if open.ends <= now || !self.used().first(&open.id, open.ends, now) {
            return Err(SsoError::Ended);
        }
        Ok(open)
    }

    fn confirmed(&self, session: String, user: OwnedUserId) -> Result<Arrival, SsoError> {
        let found = self.accounts().uia_session(&session).ok_or(SsoError::Ended)?;
        if found.user != user {
            return Err(SsoError::NotLinked);
        }
        let ends = self.world().now() + APPROVAL_MS;
        let ticket = Ticket { session, user, ends };
        let ticket = self.seal().close(TICKET, &ticket).ok_or(SsoError::Ended)?;
        Ok(Arrival::Confirmed { session: found, ticket })
    }

    /// The user agrees to what they were asked: the stage is completed. Once.
    pub fn approve(&self, ticket: &str) -> Result<(), SsoError> {
        let open: Ticket = self.seal().open(TICKET, ticket).ok_or(SsoError::Ended)?;
        let now = self.world().now();
        if open.ends <= now || !self.used().first(ticket, open.ends, now) {
            return Err(SsoError::Ended);
        }
        if self.accounts().complete_sso(&open.session, &open.user) { Ok(()) } else { Err(SsoError::Ended) }
    }
}

impl Cookie {
    /// The header that sets it: for this host alone, out of reach of scripts, not sent from other sites but by a link.
    pub fn header(&self) -> String {
        let secure = if self.name.starts_with("__Host-") { "; Secure" } else { "" };
        let (name, value, seconds) = (&self.name, &self.value, self.seconds);
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
    }

    /// The header that takes a cookie away.
    pub fn gone(name: String) -> Self {
        Self { name, value: String::new(), seconds: 0 }
    }
}

impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookie").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Return {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Return").field("error", &self.error).finish_non_exhaustive()
    }
}
