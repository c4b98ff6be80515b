//! Who may join this network: e-mail domains, third-party identifier validation and mail.
//!
//! Law: an address is parsed once, strictly, into [`Email`], and the parsed value is what is matched, stored,
//! mailed and shown.

pub mod agents;
mod allow_list;
mod config;
mod dates;
mod email;
mod error;
mod frame;
mod mail;
mod map;
mod oidc;
mod renewal;
mod rule;
mod servers;
mod service;
mod sign_up;
mod stage;
mod templates;
mod texts;
mod throttle;
mod validation;

use std::sync::Arc;

use chappe_store::{Store, accounts::ThreepidOwners};
pub use chappe_store::{
    identity::Purpose,
    identity_service::{Binding, MapPattern, MapTarget},
};
use chappe_world::{Live, World};
use ruma::{OwnedServerName, OwnedUserId, UserId};

use self::throttle::Throttle;
pub use self::{
    allow_list::{AllowList, Imported, ListedRule},
    config::{Addresses, Config, Language, MailConfig, Policy, PolicyText, Profile, Security, ServiceConfig},
    dates::{day_of, moment},
    email::{Email, InvalidEmail},
    error::Error,
    frame::PAGE_STYLE,
    mail::{Mail, MailError, MailSecrets, Mailer, Smtp},
    map::{InvalidMap, InvalidPattern, Map, MapBook, MapEntry, MapLayer, Whom},
    oidc::{
        Algorithm, Arrival, ClientAuth, ClientUrl, Cookie, Departure, EmailFallback, EmailTrust, Errand,
        Flaw, InvalidClientUrl, Manner, NewAccounts, Pass, ProviderConfig, ProviderError, Return,
        SSO_APPROVE_PATH, SSO_CALLBACK_PATH, SSO_LOGGED_OUT_PATH, SSO_LOGOUT_PATH, Sso, SsoConfig, SsoDeps,
        SsoError, SsoPage, Userinfo, sso_page,
    },
    renewal::{RENEW_PATH, RenewalError, Renewals},
    rule::{InvalidRule, Rule, Rules},
    servers::{ListedServer, ServerList, is_server_pattern},
    service::{
        Elsewhere, ForeignInvite, HomeserverError, Homeservers, IdentityServer, IdentityService, Info,
        InternalInfo, Invitation, MESSAGE_PATH, Message, OpenIdToken, PublicKey, ServiceDeps,
        SignedAssociation, StoredInvite, lookup_hash,
    },
    sign_up::{Registration, SignUp, SignUpError},
    stage::Stage,
    templates::{InvalidTemplate, Templates},
    texts::{Page, page},
    validation::{Confirmed, Pending, TokenRequest, Validated},
};

/// Path of the page that a mail's link leads to: `GET` shows it, `POST` confirms.
pub const CONFIRM_PATH: &str = "/_matrix/client/unstable/chappe/confirm_email";

/// The same for addresses that the identity service validates.
pub const SERVICE_CONFIRM_PATH: &str = "/_matrix/identity/unstable/chappe/confirm_email";

/// How this server is known from outside.
#[derive(Clone, Debug)]
pub struct Site {
    /// The server name.
    pub server_name: OwnedServerName,
    /// Where clients reach it, e.g. `https://matrix.agent.dinum.tchap.gouv.fr`.
    pub public_baseurl: String,
}

/// How mail goes out.
#[derive(Clone)]
pub struct Post {
    /// Hands mails to the relay.
    pub mailer: Arc<dyn Mailer>,
    /// What the operator wrote in place of the built-in mails.
    pub templates: Templates,
}

impl Post {
    /// The built-in mails over a mailer.
    pub fn plain(mailer: Arc<dyn Mailer>) -> Self {
        Self { mailer, templates: Templates::default() }
    }
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("templates", &self.templates).finish_non_exhaustive()
    }
}

/// Identity: a handle, clones share it.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    world: World,
    mailer: Live<Option<Arc<dyn Mailer>>>,
    config: Live<Config>,
    site: Site,
    allow_list: AllowList,
    map: MapBook,
    templates: Live<Templates>,
    per_address: Throttle<Email>,
    per_ip: Throttle<u64>,
}

/// The names of an account that follow from its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// User ids to try in this order; the first that was never used is the one.
    pub user_ids: Vec<OwnedUserId>,
    /// Display name.
    pub display_name: String,
}

impl Identity {
    /// Opens the allow-list and the map. Without `post` no address can be validated.
    pub async fn new(
        store: Store,
        world: World,
        post: Option<Post>,
        config: Config,
        site: Site,
    ) -> Result<Self, Error> {
        let allow_list = AllowList::open(store.clone(), world.clone()).await?;
        let map = MapBook::open(store.clone()).await?;
        let (mailer, templates) = sending(post);
        let inner = Inner {
            store,
            world,
            mailer: Live::new(mailer),
            config: Live::new(config),
            site,
            allow_list,
            map,
            templates: Live::new(templates),
            per_address: Throttle::default(),
            per_ip: Throttle::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Goes on with another way of mailing and another section.
    pub fn reconfigure(&self, post: Option<Post>, config: Config) {
        let (mailer, templates) = sending(post);
        self.inner.mailer.set(mailer);
        self.inner.templates.set(templates);
        self.inner.config.set(config);
    }

    /// The section as it is now.
    pub fn config(&self) -> Arc<Config> {
        self.inner.config.get()
    }

    /// The allow-list.
    pub fn allow_list(&self) -> &AllowList {
        &self.inner.allow_list
    }

    /// Which homeserver serves which address.
    pub fn map(&self) -> &MapBook {
        &self.inner.map
    }

    /// How this server is known from outside.
    pub fn site(&self) -> &Site {
        &self.inner.site
    }

    /// Whether addresses can be validated at all.
    pub fn sends_mail(&self) -> bool {
        self.inner.mailer.get().is_some()
    }

    /// What the service is called in mails and pages.
    pub fn service_name(&self) -> String {
        let name = self.config().service_name.clone();
        if name.is_empty() { self.inner.site.server_name.to_string() } else { name }
    }

    /// The language of pages for a client that asks for none.
    pub fn language(&self) -> Language {
        self.config().language
    }

    /// Whether account names follow from addresses, so that a `username` of the client is ignored.
    pub fn names_accounts(&self) -> bool {
        self.config().profile == Profile::Agents
    }

    /// The names that follow from an address (profile `agents`); up to 1,000 user ids to try.
    pub fn naming(&self, email: &Email) -> Result<Naming, Error> {
        let server = &self.inner.site.server_name;
        let user_id = |localpart: String| UserId::parse(format!("@{localpart}:{server}")).ok();
        let user_ids: Vec<_> = agents::localparts(email).take(1000).map_while(user_id).collect();
        let fits = user_ids.last().is_some_and(|id| id.as_str().len() <= 255);
        if !fits {
            return Err(Error::NameTooLong);
        }
        Ok(Naming { user_ids, display_name: agents::display_name(email) })
    }

    /// Says no to an address that may not be used here: by the map if the profile is `agents` and there is one, else by
    /// the allow-list.
    pub async fn check_allowed(&self, email: &Email) -> Result<(), Error> {
        let map = self.inner.map.map();
        if self.names_accounts() && !map.is_empty() {
            return self.check_mapped(email, &map).await;
        }
        let allowed = match self.config().addresses {
            Addresses::Any => true,
            Addresses::Listed => self.inner.allow_list.check(email).is_some(),
        };
        if allowed { Ok(()) } else { Err(Error::Denied { address: email.to_string() }) }
    }

    async fn check_mapped(&self, email: &Email, map: &Map) -> Result<(), Error> {
        let here = &self.inner.site.server_name;
        let target = map.target(email).map(|(target, _)| target);
        let Some(target) =
            target.filter(|target| target.hs == *here || target.shadow_hs.as_ref() == Some(here))
        else {
            return Err(Error::WrongServer { address: email.to_string() });
        };
        // Whoever has an account was let in already.
        if target.requires_invite && !self.is_invited(email).await? && self.owner(email).await?.is_none() {
            return Err(Error::InvitationMissing { service: self.service_name() });
        }
        Ok(())
    }

    /// The account that has an address.
    pub async fn owner(&self, email: &Email) -> Result<Option<OwnedUserId>, Error> {
        let key = ("email".to_owned(), email.as_str().to_owned());
        let owner = self.inner.store.read().get::<ThreepidOwners>(&key).await?;
        let user = |id| UserId::parse(id).map_err(|_| chappe_store::Error::Corrupt("owner of an address"));
        Ok(owner.map(user).transpose()?)
    }
}

/// What mails with, and in which words.
fn sending(post: Option<Post>) -> (Option<Arc<dyn Mailer>>, Templates) {
    post.map_or_else(Default::default, |post| (Some(post.mailer), post.templates))
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}
