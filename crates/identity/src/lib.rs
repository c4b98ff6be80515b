//! Who may join this network: e-mail domains, third-party identifier validation and mail.
//!
//! Law: an address is parsed once, strictly, into [`Email`], and the parsed value is what is matched, stored,
//! mailed and shown.

pub mod agents;
mod allow_list;
mod config;
mod email;
mod error;
mod mail;
mod rule;
mod servers;
mod stage;
mod texts;
mod throttle;
mod validation;

use std::sync::Arc;

pub use chappe_store::identity::Purpose;
use chappe_store::{Store, accounts::ThreepidOwners};
use chappe_world::World;
use ruma::{OwnedServerName, OwnedUserId, UserId};

use self::throttle::Throttle;
pub use self::{
    allow_list::{AllowList, Imported, ListedRule},
    config::{Addresses, Config, Language, MailConfig, Profile, Security},
    email::{Email, InvalidEmail},
    error::Error,
    mail::{Mail, MailError, MailSecrets, Mailer, Smtp},
    rule::{InvalidRule, Rule, Rules},
    servers::{ListedServer, ServerList, is_server_pattern},
    stage::Stage,
    texts::{Page, page},
    validation::{Confirmed, Pending, TokenRequest, Validated},
};

/// Path of the page that a mail's link leads to: `GET` shows it, `POST` confirms.
pub const CONFIRM_PATH: &str = "/_matrix/client/unstable/chappe/confirm_email";

/// How this server is known from outside.
#[derive(Clone, Debug)]
pub struct Site {
    /// The server name.
    pub server_name: OwnedServerName,
    /// Where clients reach it, e.g. `https://matrix.agent.dinum.tchap.gouv.fr`.
    pub public_baseurl: String,
}

/// Identity: a handle, clones share it.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    world: World,
    mailer: Option<Arc<dyn Mailer>>,
    config: Config,
    site: Site,
    allow_list: AllowList,
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
    /// Opens the allow-list. Without `mailer` no address can be validated.
    pub async fn new(
        store: Store,
        world: World,
        mailer: Option<Arc<dyn Mailer>>,
        config: Config,
        site: Site,
    ) -> Result<Self, Error> {
        let allow_list = AllowList::open(store.clone(), world.clone()).await?;
        let per_address = Throttle::new(config.mails_per_address);
        let per_ip = Throttle::new(config.mails_per_ip);
        let inner = Inner { store, world, mailer, config, site, allow_list, per_address, per_ip };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The allow-list.
    pub fn allow_list(&self) -> &AllowList {
        &self.inner.allow_list
    }

    /// Whether addresses can be validated at all.
    pub fn sends_mail(&self) -> bool {
        self.inner.mailer.is_some()
    }

    /// What the service is called in mails and pages.
    pub fn service_name(&self) -> &str {
        let name = self.inner.config.service_name.as_str();
        if name.is_empty() { self.inner.site.server_name.as_str() } else { name }
    }

    /// The language of pages for a client that asks for none.
    pub fn language(&self) -> Language {
        self.inner.config.language
    }

    /// Whether account names follow from addresses, so that a `username` of the client is ignored.
    pub fn names_accounts(&self) -> bool {
        self.inner.config.profile == Profile::Agents
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

    /// Says no to an address that may not be used here.
    pub fn check_allowed(&self, email: &Email) -> Result<(), Error> {
        let allowed = match self.inner.config.addresses {
            Addresses::Any => true,
            Addresses::Listed => self.inner.allow_list.check(email).is_some(),
        };
        if allowed { Ok(()) } else { Err(Error::Denied { address: email.to_string() }) }
    }

    /// The account that has an address.
    pub async fn owner(&self, email: &Email) -> Result<Option<OwnedUserId>, Error> {
        let key = ("email".to_owned(), email.as_str().to_owned());
        let owner = self.inner.store.read().get::<ThreepidOwners>(&key).await?;
        let user = |id| UserId::parse(id).map_err(|_| chappe_store::Error::Corrupt("owner of an address"));
        Ok(owner.map(user).transpose()?)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}
