//! Single sign-on: this server as a relying party of identity providers (OpenID Connect Core 1.0, code flow with PKCE).
//!
//! [`Sso::depart`] sends a browser to a provider, [`Sso::arrive`] takes it in again and says which user it is.

mod claims;
mod client_url;
mod config;
mod flow;
mod jose;
mod leave;
mod pages;
mod people;
mod provider;
mod seal;

use std::{collections::BTreeMap, sync::Arc};

use chappe_accounts::Accounts;
use chappe_world::World;
use ruma::UserId;

use self::{
    client_url::Trusted,
    provider::Provider,
    seal::{Seal, Used},
};
pub use self::{
    client_url::{ClientUrl, InvalidClientUrl},
    config::{ClientAuth, EmailFallback, EmailTrust, NewAccounts, ProviderConfig, SsoConfig, Userinfo},
    flow::{Arrival, Cookie, Departure, Errand, Manner, Pass, Return},
    jose::{Algorithm, Flaw},
    pages::{SsoPage, sso_page},
    provider::ProviderError,
};
use crate::{Identity, IdentityService};

/// Where providers send browsers back to.
pub const SSO_CALLBACK_PATH: &str = "/_matrix/client/unstable/chappe/oidc/callback";

/// Where the page that asks for an approval sends its answer.
pub const SSO_APPROVE_PATH: &str = "/_matrix/client/unstable/chappe/oidc/approve";

/// Where a browser goes to end its session with a provider, whose id follows.
pub const SSO_LOGOUT_PATH: &str = "/_matrix/client/unstable/chappe/oidc/logout";

/// Where providers send browsers back to whose session has ended.
pub const SSO_LOGGED_OUT_PATH: &str = "/_matrix/client/unstable/chappe/oidc/logged_out";

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SsoError {
    /// There is no such provider.
    #[error("no such identity provider")]
    NoProvider,
    /// The address is no client's.
    #[error(transparent)]
    Client(InvalidClientUrl),
    /// The log-in was not begun in this browser, or took too long, or was ended before.
    #[error("this log-in has ended")]
    Ended,
    /// What the browser would have to keep meanwhile is more than browsers keep.
    #[error("the request is too long to be kept by the browser")]
    TooLong,
    /// The person or the provider broke off.
    #[error("the identity provider gave no code")]
    Cancelled,
    /// The provider did not vouch for anybody.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The provider gives no address, and there is no account without.
    #[error("the identity provider gives no e-mail address")]
    NoAddress,
    /// The provider does not say that the address was verified.
    #[error("the identity provider has not verified the e-mail address")]
    NotVerified,
    /// The address is an account's that this provider may not open.
    #[error("the e-mail address belongs to an account")]
    AddressTaken,
    /// No user name follows from what the provider says.
    #[error("no user name follows from what the identity provider says")]
    NoName,
    /// There is no account, and none is made.
    #[error("no account, and none is made")]
    NoAccount,
    /// Whoever logged in is not who was to confirm.
    #[error("this is another user's")]
    NotLinked,
    /// The account is closed.
    #[error("the account is closed")]
    Closed,
    /// The account is locked.
    #[error("the account is locked")]
    Locked,
    /// The account is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// The address may not be used here.
    #[error(transparent)]
    Identity(#[from] crate::Error),
    /// Accounts say no.
    #[error(transparent)]
    Accounts(#[from] chappe_accounts::Error),
}

/// What [`Sso`] is built from.
pub struct SsoDeps {
    /// The outside world.
    pub world: World,
    /// Accounts.
    pub accounts: Accounts,
    /// Who may join.
    pub service: IdentityService,
    /// The section of the configuration.
    pub config: SsoConfig,
    /// What the files of secrets hold, by the provider's id.
    pub secrets: BTreeMap<String, String>,
}

/// Single sign-on by the providers of one section: a handle, clones share it.
#[derive(Clone)]
pub struct Sso {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    accounts: Accounts,
    service: IdentityService,
    providers: Vec<Arc<Provider>>,
    trusted: Vec<Trusted>,
    callback: String,
    seal: Arc<Seal>,
    used: Arc<Used>,
}

impl Sso {
    /// Single sign-on by the providers of the configuration. Nothing is fetched yet.
    pub fn new(deps: SsoDeps) -> Self {
        let (seal, used) = (Arc::new(Seal::new(&deps.world)), Arc::new(Used::default()));
        Self::with(deps, (seal, used), &[])
    }

    /// The same by another section and its secrets. Whoever is on the way to a provider that is still there gets back.
    #[must_use]
    pub fn reconfigured(&self, config: SsoConfig, secrets: BTreeMap<String, String>) -> Self {
        let Inner { world, accounts, service, seal, used, providers, .. } = &*self.inner;
        let (world, accounts, service) = (world.clone(), accounts.clone(), service.clone());
        let deps = SsoDeps { world, accounts, service, config, secrets };
        Self::with(deps, (Arc::clone(seal), Arc::clone(used)), providers)
    }

    /// What `known` has fetched is kept where nothing else has changed.
    fn with(deps: SsoDeps, (seal, used): (Arc<Seal>, Arc<Used>), known: &[Arc<Provider>]) -> Self {
        let SsoDeps { world, accounts, service, config, mut secrets } = deps;
        let base = service.identity().site().public_baseurl.trim_end_matches('/');
        let callback = format!("{base}{SSO_CALLBACK_PATH}");
        let provider = |one: ProviderConfig| {
            let secret = secrets.remove(&one.id);
            let same = known.iter().find(|known| known.is_by(&one, secret.as_deref()));
            same.cloned().unwrap_or_else(|| Arc::new(Provider::new(one, secret, &callback, &world)))
        };
        let providers = config.providers.into_iter().map(provider).collect();
        let trusted = config.trusted_clients.iter().filter_map(|text| Trusted::parse(text)).collect();
        let inner = Inner { world, accounts, service, providers, trusted, callback, seal, used };
        Self { inner: Arc::new(inner) }
    }

    /// Whether there is any provider.
    pub fn is_on(&self) -> bool {
        !self.inner.providers.is_empty()
    }

    /// The providers, in the order in which clients show them.
    pub fn providers(&self) -> impl Iterator<Item = &ProviderConfig> {
        self.inner.providers.iter().map(|provider| &provider.config)
    }

    /// The providers by which a user can log in.
    pub async fn providers_of(&self, user: &UserId) -> Result<Vec<&ProviderConfig>, chappe_accounts::Error> {
        if !self.is_on() {
            return Ok(Vec::new());
        }
        let links = self.inner.accounts.external_links(user).await?;
        let linked = |config: &&ProviderConfig| links.iter().any(|link| link.account.issuer == config.issuer);
        Ok(self.providers().filter(linked).collect())
    }

    /// Whether a client's address gets its token without a question.
    pub fn trusts(&self, client: &ClientUrl) -> bool {
        self.inner.trusted.iter().any(|trusted| trusted.covers(client))
    }

    fn provider(&self, id: &str) -> Result<&Provider, SsoError> {
        let found = self.inner.providers.iter().find(|provider| provider.config.id == id);
        found.map(Arc::as_ref).ok_or(SsoError::NoProvider)
    }

    fn identity(&self) -> &Identity {
        self.inner.service.identity()
    }

    fn service(&self) -> &IdentityService {
        &self.inner.service
    }

    fn accounts(&self) -> &Accounts {
        &self.inner.accounts
    }

    fn world(&self) -> &World {
        &self.inner.world
    }

    fn callback(&self) -> &str {
        &self.inner.callback
    }

    /// A path of this server as browsers reach it.
    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.identity().site().public_baseurl.trim_end_matches('/'))
    }

    /// Whether browsers reach this server over TLS.
    fn is_secure(&self) -> bool {
        self.inner.callback.starts_with("https:")
    }

    fn seal(&self) -> &Seal {
        &self.inner.seal
    }

    fn used(&self) -> &Used {
        &self.inner.used
    }
}

impl std::fmt::Debug for Sso {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.inner.providers).finish()
    }
}

impl std::fmt::Debug for SsoDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SsoDeps")
    }
}
