//! The configuration is read again while the server runs: as a whole, or nothing of it. See ADR 24.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use chappe_accounts::Accounts;
use chappe_admin::{Changes, Reload, Statistics};
use chappe_delivery::Delivery;
use chappe_federation::{Federation, OldKey};
use chappe_identity::{Identity, Post, ServerList, Sso};
use chappe_media::Media;
use chappe_oauth::OAuth;
use chappe_rooms::Rooms;
use chappe_scanner::Examiner;
use chappe_search::Search;
use chappe_store::Store;
use chappe_world::World;
use ruma::OwnedServerSigningKeyId;
use tokio::sync::Mutex;

use crate::{
    assemble::servers_changed,
    config::Config,
    files::{post, provider_secrets},
    observe, sections,
    serve::rehearse,
    tls::Certificate,
};

/// How long reading files may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What goes on with other sections.
pub(crate) struct Parts {
    pub(crate) world: World,
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    pub(crate) identity: Identity,
    pub(crate) servers: ServerList,
    pub(crate) federation: Federation,
    pub(crate) old_keys: BTreeMap<OwnedServerSigningKeyId, OldKey>,
    pub(crate) rooms: Rooms,
    pub(crate) delivery: Delivery,
    pub(crate) media: Media,
    pub(crate) examiner: Option<Examiner>,
    pub(crate) search: Search,
    pub(crate) sso: Sso,
    pub(crate) client: chappe_client_api::Api,
    pub(crate) oauth: Option<OAuth>,
    pub(crate) identity_api: chappe_identity_api::Api,
    pub(crate) statistics: Statistics,
}

/// Reads the configuration again and hands out what has changed.
pub(crate) struct Reloads {
    parts: Parts,
    /// What the server runs by.
    running: Mutex<Config>,
    /// Those of listeners.
    certificates: Vec<Arc<Certificate>>,
}

impl Reloads {
    /// For parts that were built by `config`.
    pub(crate) fn new(parts: Parts, config: &Config, certificates: Vec<Arc<Certificate>>) -> Self {
        Self { parts, running: Mutex::new(config.clone()), certificates }
    }

    /// What goes on with other sections.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    async fn read_again(&self) -> Result<Changes> {
        let mut running = self.running.lock().await;
        let written = running.written.clone();
        let world = &self.parts.world;
        let reading = world.spawn_blocking(move || {
            let new = written.read_again().map_err(|error| anyhow!(error.without_values()))?;
            rehearse(&new)?;
            Ok::<_, anyhow::Error>(new)
        });
        let new = world.timeout(PATIENCE, reading).await.context("the files are not read in time")???;
        let (config, changes) = running.follow(&new)?;
        let post = config.mail.as_ref().map(post).transpose().context("`mail`")?;
        let secrets = provider_secrets(&config.sso).context("`sso.providers.client_secret_file`")?;
        let sso = self.parts.sso.reconfigured(config.sso.clone(), secrets);
        let filter = observe::filter(&config.log)?;
        let _turn = self.parts.servers.turn().await;
        let admitted = if config.federation.allow == running.federation.allow {
            None
        } else {
            Some(self.parts.admitted(&config).await.context("the list of servers")?)
        };
        // From here on nothing fails and nothing is waited for.
        self.parts.hand_out(&config, post, sso);
        if let Some(patterns) = admitted {
            self.parts.admit(&config, patterns.as_deref());
        }
        observe::log_by(filter);
        for certificate in &self.certificates {
            // Those that the configuration names have just been read: these may be ones that it names no more.
            if let Err(error) = certificate.reload() {
                tracing::error!(error = format!("{error:#}"), "the old certificate stays");
            }
        }
        *running = config;
        Ok(changes)
    }
}

#[async_trait]
impl Reload for Reloads {
    async fn reload(&self) -> Result<Changes, String> {
        match self.read_again().await {
            Ok(changes) => {
                let (applied, next_start) = (&changes.applied, &changes.waiting);
                tracing::info!(?applied, ?next_start, "the configuration was read again");
                Ok(changes)
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the configuration stays as it was");
                Err(format!("the configuration stays as it was: {error}"))
            }
        }
    }
}

impl Parts {
    /// The servers that may take part by a configuration, with those that operators added.
    async fn admitted(&self, config: &Config) -> Result<Option<Vec<String>>> {
        let (store, world) = (self.store.clone(), self.world.clone());
        Ok(ServerList::new(store, world, config.federation.allow.clone()).patterns().await?)
    }

    fn admit(&self, config: &Config, patterns: Option<&[String]>) {
        self.servers.reconfigure(config.federation.allow.clone());
        servers_changed(&self.federation)(patterns);
    }

    fn hand_out(&self, config: &Config, post: Option<Post>, sso: Sso) {
        self.accounts.reconfigure(sections::accounts(config));
        self.identity.reconfigure(post, config.identity.clone());
        self.federation.network().reconfigure(sections::federation(config, &self.old_keys));
        self.rooms.reconfigure(sections::rooms(config));
        self.delivery.reconfigure(config.delivery.clone());
        self.media.reconfigure(config.media.clone());
        if let Some(examiner) = &self.examiner {
            examiner.reconfigure(config.scanner.clone());
        }
        self.search.reconfigure(config.client.user_directory);
        self.client.reconfigure(sections::client(config), sso.clone());
        if let Some(oauth) = &self.oauth {
            let log_ins = sections::log_ins(config, self.client.limiter());
            oauth.reconfigure(config.oauth.clone(), sso, config.client.registration.clone(), log_ins);
        }
        self.identity_api.reconfigure(config.identity_api.clone());
        self.statistics.reconfigure(config.admin.statistics.clone());
    }
}
