//! The house is put together: every handle from the ones below it, in one order.

mod routes;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result};
use chappe_accounts::Accounts;
use chappe_admin::{Admin, Jobs, SharedSecret, Statistics, signing_key};
use chappe_appservices::{Link, Services};
use chappe_calls::Calls;
use chappe_delivery::Delivery;
use chappe_federation::{
    Federation, FederationDeps, ListBook, ListDeps, Network, NetworkDeps, OldKey, weak_keys,
};
use chappe_identity::{Identity, IdentityService, Renewals, ServerList, ServiceDeps, Site, Sso, SsoDeps};
use chappe_kv::Db;
use chappe_media::Media;
use chappe_oauth::OAuth;
use chappe_rooms::Rooms;
use chappe_rules::{build::SigningKey, check::WeakKeys};
use chappe_scanner::Examiner;
use chappe_search::Search;
use chappe_store::Store;
use chappe_world::World;
use metrics_exporter_prometheus::PrometheusHandle;
use ruma::{OwnedServerName, OwnedServerSigningKeyId};

use crate::{
    beside, clock,
    config::Config,
    files::{post, provider_secrets, shared_secret},
    fleeting, observe, registrations,
    reload::{Parts, Reloads},
    restored, sections,
    tls::Certificate,
    upkeep::{MediaKeeper, keep_accounts, keep_oauth, keep_rooms},
    whose,
};

/// Every handle of one server.
pub struct House {
    pub(crate) world: World,
    pub(crate) store: Store,
    /// Accounts.
    pub accounts: Accounts,
    /// The identity service, and identity within.
    pub service: IdentityService,
    federation: Federation,
    delivery: Delivery,
    media: Media,
    examiner: Option<Examiner>,
    rooms: Rooms,
    services: Services,
    search: Search,
    /// The verbs of the operator.
    pub admin: Admin,
    jobs: Jobs,
    statistics: Statistics,
    secret: Option<SharedSecret>,
    metrics: PrometheusHandle,
    settings: Arc<chappe_web::Settings>,
    calls: Option<Calls>,
    client: chappe_client_api::Api,
    /// If this server is its own authorization server.
    oauth: Option<OAuth>,
    identity_api: chappe_identity_api::Api,
    /// What each listener shows, in the order of the configuration.
    pub(crate) certificates: Vec<Option<Arc<Certificate>>>,
}

/// The API of the identity service.
fn identity_api(config: &Config, service: &IdentityService, network: Network) -> chappe_identity_api::Api {
    let config = config.identity_api.clone();
    chappe_identity_api::Api::new(chappe_identity_api::Deps { service: service.clone(), network, config })
}

impl House {
    /// Builds the handles in dependency order. Nothing runs yet.
    pub async fn build(config: &Config, world: World, db: Db) -> Result<Self> {
        let ground = Ground::lay(config, world, db).await?;
        let network = ground.network(config).await?;
        let list = ground.list(config, &network).await?;
        let rooms = ground.rooms(config, &network);
        let delivery = ground.delivery(config, &rooms);
        let examiner = beside::examiner(config, &ground.world, &ground.store).await?;
        let media = ground.media(config, &network, examiner.as_ref()).await?;
        let services = ground.services(&rooms, &delivery).await?;
        let search = ground.search(config, &rooms, &network);
        let Ground { world, store, accounts, identity, .. } = &ground;
        let federation = ground.federation((&network, &list), (&rooms, &search), &delivery);
        let service = ground.service(&federation);
        let sso = ground.sso(config, &service)?;
        let identity_api = identity_api(config, &service, network);
        let calls = beside::calls(config, world, (&federation, &rooms))?;
        let client = chappe_client_api::Api::new(chappe_client_api::Deps {
            world: world.clone(),
            accounts: accounts.clone(),
            service: service.clone(),
            sso: sso.clone(),
            rooms: rooms.clone(),
            remote: Arc::new(federation.clone()),
            delivery: delivery.clone(),
            services: services.clone(),
            media: media.clone(),
            scanner: beside::scanner(config, examiner.as_ref(), &media)?,
            calls: calls.clone(),
            search: search.clone(),
            config: sections::client(config),
        });
        let oauth =
            config.oauth.enabled.then(|| ground.oauth(config, &rooms, &client, (&service, sso.clone())));
        let jobs = Jobs::new(world.clone(), store.clone(), accounts.clone(), rooms.clone());
        let statistics = beside::statistics(config, (world, store), (&rooms, &media)).await?;
        let parts = Parts {
            world: world.clone(),
            store: store.clone(),
            accounts: accounts.clone(),
            identity: identity.clone(),
            servers: ground.servers.clone(),
            federation: federation.clone(),
            old_keys: ground.old_keys.clone(),
            rooms: rooms.clone(),
            delivery: delivery.clone(),
            media: media.clone(),
            examiner: examiner.clone(),
            search: search.clone(),
            sso,
            client: client.clone(),
            oauth: oauth.clone(),
            identity_api: identity_api.clone(),
            statistics: statistics.clone(),
        };
        let admin = ground.admin(config, parts, (list, &jobs));
        Ok(Self {
            secret: shared_secret(&config.admin)?,
            metrics: observe::metrics_handle()?,
            settings: Arc::new(config.http.clone()),
            world: ground.world,
            store: ground.store,
            accounts: ground.accounts,
            service,
            federation,
            delivery,
            media,
            examiner,
            rooms,
            services,
            search,
            admin,
            jobs,
            statistics,
            calls,
            client,
            oauth,
            identity_api,
            certificates: ground.certificates,
        })
    }

    /// The list of the network, if one is followed.
    pub fn network_list(&self) -> Option<&ListBook> {
        self.federation.list()
    }

    /// Deals with a backup that was put back, at the first start, before anybody is served.
    pub(crate) async fn settle(&self) -> Result<()> {
        restored::settle(&self.store, &self.accounts, &self.federation).await.context("after a backup")
    }

    /// Starts what runs beside requests.
    pub fn start(&self) {
        self.federation.start();
        self.services.start();
        fleeting::start(&self.world, &self.delivery, &self.federation);
        let (world, rooms, store) = (self.world.clone(), self.rooms.clone(), self.store.clone());
        self.world.spawn("clock", clock::keep(self.world.clone(), self.store.clone()));
        self.world.spawn("rooms upkeep", keep_rooms(world, rooms, store));
        self.world.spawn("jobs of administrators", self.jobs.clone().run());
        self.world.spawn("statistics", self.statistics.clone().run());
        let service = self.service.clone();
        self.world.spawn("identity service", async move { service.run().await });
        let renewals = Renewals::new(self.service.identity().clone(), self.accounts.clone());
        self.world.spawn("ends of accounts", async move { renewals.run().await });
        let rooms = self.rooms.clone();
        self.world.spawn("delayed events", async move { rooms.run_delayed().await });
        let rooms = self.rooms.clone();
        self.world.spawn("heads of rooms", async move { rooms.run_heads().await });
        let rooms = self.rooms.clone();
        self.world.spawn("guests of rooms", async move { rooms.run_guests().await });
        let rooms = self.rooms.clone();
        self.world.spawn("what has expired", async move { rooms.run_expiry().await });
        let rooms = self.rooms.clone();
        self.world.spawn("rooms without members", async move {
            if let Err(error) = rooms.resume_partial().await {
                tracing::error!(%error, "the members of rooms that were joined before are not fetched");
            }
        });
        let rooms = self.rooms.clone();
        self.world.spawn("joins taken back", async move { rooms.run_joins().await });
        if let Some(calls) = self.calls.clone() {
            self.world.spawn("calls", async move { calls.run().await });
        }
        let search = self.search.clone();
        self.world.spawn("search", async move { search.run().await });
        self.world.spawn("metrics", observe::keep_metrics(self.world.clone(), self.metrics.clone()));
        self.world.spawn("accounts upkeep", keep_accounts(self.world.clone(), self.accounts.clone()));
        if let Some(oauth) = self.oauth.clone() {
            self.world.spawn("oauth upkeep", keep_oauth(self.world.clone(), oauth));
        }
        let keeper = MediaKeeper {
            world: self.world.clone(),
            media: self.media.clone(),
            examiner: self.examiner.clone(),
            accounts: self.accounts.clone(),
            rooms: self.rooms.clone(),
        };
        self.world.spawn("media upkeep", keeper.run());
    }
}

/// What all else stands on.
struct Ground {
    world: World,
    store: Store,
    server: OwnedServerName,
    key: Arc<SigningKey>,
    old_keys: BTreeMap<OwnedServerSigningKeyId, OldKey>,
    weak_keys: Arc<WeakKeys>,
    accounts: Accounts,
    identity: Identity,
    servers: ServerList,
    link: Link,
    certificates: Vec<Option<Arc<Certificate>>>,
}

impl Ground {
    async fn lay(config: &Config, world: World, db: Db) -> Result<Self> {
        let server = config.server_name.clone();
        let is_new = whose::check(&db, &server).await?;
        let store = Store::open(db).await.context("opening the store")?;
        clock::recall(&world, &store).await.context("where the clock was")?;
        let weak_keys = Arc::new(weak_keys());
        let keys = signing_key::load_or_create(&config.signing_key_file(), &world, &weak_keys, is_new)?;
        // After the key: a first start that breaks off before is one again.
        whose::note(&store, &server).await.context("the server's name")?;
        let registered = registrations::read(config)?;
        let (own, section) = (server.clone(), sections::accounts(config));
        let accounts =
            Accounts::with_appservices(store.clone(), world.clone(), own, section, registered.clone());
        accounts.ensure_senders().await.context("the users of application services")?;
        accounts.settle_password_costs().await.context("costs of passwords")?;
        accounts.learn_erased().await.context("accounts that were erased")?;
        accounts.finish_erasures().await.context("what is left of accounts that were erased")?;
        let link = Link::new(world.clone(), registered, config.appservices.clone());
        let post = config.mail.as_ref().map(post).transpose()?;
        let site = Site { server_name: server.clone(), public_baseurl: config.public_baseurl.clone() };
        let identity =
            Identity::new(store.clone(), world.clone(), post, config.identity.clone(), site).await?;
        let servers = ServerList::new(store.clone(), world.clone(), config.federation.allow.clone());
        let (key, old_keys) = (Arc::new(keys.current), keys.old);
        let files = config.listeners.iter().map(|listener| listener.tls.as_ref());
        let certificates =
            files.map(|files| files.map(Certificate::read).transpose()).collect::<Result<_>>()?;
        Ok(Self {
            world,
            store,
            server,
            key,
            old_keys,
            weak_keys,
            accounts,
            identity,
            servers,
            link,
            certificates,
        })
    }

    /// The outbound half of federation, with the servers that may be talked with.
    async fn network(&self, config: &Config) -> Result<Network> {
        let deps = NetworkDeps {
            world: self.world.clone(),
            store: self.store.clone(),
            server: self.server.clone(),
            key: Arc::clone(&self.key),
        };
        let network = Network::new(deps, sections::federation(config, &self.old_keys));
        network.allowed().replace(self.servers.patterns().await?.as_deref());
        Ok(network)
    }

    /// The list of the network, applied as far as it is here.
    async fn list(&self, config: &Config, network: &Network) -> Result<Option<ListBook>> {
        let Some(section) = config.federation.network.clone() else { return Ok(None) };
        let deps = ListDeps {
            world: self.world.clone(),
            store: self.store.clone(),
            server: self.server.clone(),
            config: section,
            network: Some(network.clone()),
            map: self.identity.map().clone(),
        };
        Ok(Some(ListBook::open(deps).await.context("the list of the network")?))
    }

    fn federation(
        &self,
        (network, list): (&Network, &Option<ListBook>),
        (rooms, search): (&Rooms, &Search),
        delivery: &Delivery,
    ) -> Federation {
        let (world, delivery) = (self.world.clone(), delivery.clone());
        Federation::new(FederationDeps {
            network: network.clone(),
            rooms: rooms.clone(),
            accounts: self.accounts.clone(),
            search: search.clone(),
            activity: Arc::new(fleeting::Inward { world, delivery }),
            list: list.clone(),
        })
    }

    fn service(&self, federation: &Federation) -> IdentityService {
        IdentityService::new(ServiceDeps {
            identity: self.identity.clone(),
            accounts: self.accounts.clone(),
            key: Arc::clone(&self.key),
            homeservers: Arc::new(federation.clone()),
        })
    }

    /// The verbs of the operator; one of them reads the configuration again.
    fn admin(&self, config: &Config, parts: Parts, (list, jobs): (Option<ListBook>, &Jobs)) -> Admin {
        let certificates = self.certificates.iter().flatten().cloned().collect();
        let reloads = Arc::new(Reloads::new(parts, config, certificates));
        let parts = reloads.parts();
        let running = chappe_admin::Running {
            rooms: parts.rooms.clone(),
            federation: parts.federation.clone(),
            media: parts.media.clone(),
            jobs: jobs.clone(),
            statistics: parts.statistics.clone(),
            servers_changed: servers_changed(&parts.federation),
            configuration: Arc::clone(&reloads) as _,
            started: self.world.now(),
        };
        Admin::new(chappe_admin::Deps {
            world: self.world.clone(),
            store: self.store.clone(),
            accounts: self.accounts.clone(),
            allow_list: self.identity.allow_list().clone(),
            map: self.identity.map().clone(),
            servers: self.servers.clone(),
            list,
            places: config.places(),
            running: Some(running),
        })
    }

    fn sso(&self, config: &Config, service: &IdentityService) -> Result<Sso> {
        Ok(Sso::new(SsoDeps {
            world: self.world.clone(),
            accounts: self.accounts.clone(),
            service: service.clone(),
            config: config.sso.clone(),
            secrets: provider_secrets(&config.sso)?,
        }))
    }

    fn rooms(&self, config: &Config, network: &Network) -> Rooms {
        let deps = chappe_rooms::Deps {
            store: self.store.clone(),
            accounts: self.accounts.clone(),
            world: self.world.clone(),
            server: self.server.clone(),
            key: Arc::clone(&self.key),
            weak_keys: Arc::clone(&self.weak_keys),
            peers: Arc::new(network.clone()),
            services: Arc::new(self.link.clone()),
        };
        Rooms::new(deps, sections::rooms(config))
    }

    /// This server as an authorization server; log-ins are counted together with those of the client API.
    fn oauth(
        &self,
        config: &Config,
        rooms: &Rooms,
        client: &chappe_client_api::Api,
        (service, sso): (&IdentityService, Sso),
    ) -> OAuth {
        let log_ins = sections::log_ins(config, client.limiter());
        let rooms = rooms.clone();
        OAuth::new(chappe_oauth::Deps {
            store: self.store.clone(),
            world: self.world.clone(),
            accounts: self.accounts.clone(),
            service: service.clone(),
            sso,
            registration: config.client.registration.clone(),
            log_ins,
            leave_rooms: Arc::new(move |user| rooms.leave_all(user)),
            config: config.oauth.clone(),
        })
    }

    fn delivery(&self, config: &Config, rooms: &Rooms) -> Delivery {
        let deps = chappe_delivery::Deps {
            store: self.store.clone(),
            world: self.world.clone(),
            accounts: self.accounts.clone(),
            rooms: rooms.clone(),
        };
        Delivery::new(deps, config.delivery.clone())
    }

    async fn services(&self, rooms: &Rooms, delivery: &Delivery) -> Result<Services> {
        let deps = chappe_appservices::Deps {
            store: self.store.clone(),
            accounts: self.accounts.clone(),
            rooms: rooms.clone(),
            delivery: delivery.clone(),
            link: self.link.clone(),
        };
        Services::open(deps).await.context("the queues of application services")
    }

    fn search(&self, config: &Config, rooms: &Rooms, network: &Network) -> Search {
        let deps = chappe_search::Deps {
            store: self.store.clone(),
            world: self.world.clone(),
            accounts: self.accounts.clone(),
            rooms: rooms.clone(),
            others: Arc::new(network.clone()),
            circle: config.client.user_directory,
            folder: config.search_dir(),
        };
        Search::new(deps, config.search.clone())
    }

    async fn media(&self, config: &Config, network: &Network, examiner: Option<&Examiner>) -> Result<Media> {
        let deps = chappe_media::Deps {
            store: self.store.clone(),
            world: self.world.clone(),
            server_name: self.server.clone(),
            directory: config.media_dir(),
            remote: Arc::new(network.clone()),
            inspector: beside::inspector(examiner),
        };
        Media::open(deps, config.media.clone()).await.context("opening the media folder")
    }
}

/// Goes on with another list of servers. Whoever sends follows it, and begins with those that came onto it.
pub(crate) fn servers_changed(federation: &Federation) -> chappe_admin::ServersChanged {
    let allowed = federation.network().allowed().clone();
    Box::new(move |patterns: Option<&[String]>| allowed.replace(patterns))
}
