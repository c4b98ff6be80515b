//! A server's life: open, listen, serve, stop.

use std::{
    fs::DirBuilder,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chappe_admin::{Admin, Configuration, Verb};
use chappe_kv::Db;
use chappe_kv_rocksdb::{Options, Rocks};
use chappe_world::World;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    admin_socket,
    assemble::House,
    config::Config,
    files,
    listen::{Door, Doorman},
    observe,
    places::Places,
    process, registrations, restored, service,
    tls::Certificate,
    watched::{self, Watched},
};

/// How often the server looks whether it can still write.
const PULSE: Duration = Duration::from_secs(1);

/// A server that is up.
pub struct Server {
    house: House,
    addresses: Vec<SocketAddr>,
    grace: Duration,
}

impl Server {
    /// Assembles a server on an engine and listens. The world is the server's own: stopping the server stops it.
    pub async fn start(config: &Config, world: World, db: Db) -> Result<Self> {
        make_data_dir(&config.data_dir)?;
        let house = House::build(config, world.clone(), db).await?;
        house.settle().await?;
        let (most, share) = (config.process.max_connections, config.process.max_connections_per_address);
        let doorman = Doorman {
            world: world.clone(),
            places: Places::new(most, share, Arc::new(config.http.clone())),
            header_timeout: Duration::from_secs(config.process.header_timeout_seconds),
        };
        let (mut doors, mut addresses) = (Vec::new(), Vec::new());
        for (listener, certificate) in config.listeners.iter().zip(&house.certificates) {
            let place = listener.socket();
            let bound =
                TcpListener::bind(place).await.with_context(|| format!("cannot listen on {place}"))?;
            addresses.push(bound.local_addr().context("own address")?);
            let (router, tls) = (house.router(&listener.apis), certificate.clone());
            doors.push(Door { listener: bound, router, tls });
        }
        let socket = admin_socket::bind(&config.admin_socket())?;
        house.start();
        world.spawn("admin socket", admin_socket::attend(doorman.clone(), socket, house.admin.clone()));
        for door in doors {
            world.spawn("listener", doorman.clone().attend(door));
        }
        let grace = Duration::from_secs(config.process.shutdown_seconds);
        Ok(Self { house, addresses, grace })
    }

    /// Where each listener of the configuration listens, in the same order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The handles inside.
    pub fn house(&self) -> &House {
        &self.house
    }

    /// Reads the configuration and the files that it names again, as `chappe admin config reload` does. The log says what
    /// came of it.
    pub async fn reload(&self) {
        reload(&self.house.admin).await;
    }

    /// Accepts no more, ends long-polls, finishes what is under way, stops everything, closes.
    pub async fn stop(self) {
        let left = self.house.world.shut_down(self.grace).await;
        if !left.is_empty() {
            tracing::warn!(?left, "some work did not end in time and was dropped");
        }
    }
}

async fn reload(admin: &Admin) {
    if let Err(error) = admin.run(Verb::Config(Configuration::Reload)).await {
        tracing::error!(%error, "SIGHUP");
    }
}

/// Runs until the process is told to stop (SIGTERM, SIGINT). SIGHUP has the configuration read again.
pub(crate) async fn serve(config: &Config) -> Result<()> {
    observe::start_logging(&config.log)?;
    process::allow_connections(config.process.max_connections);
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut hang_up = signal(SignalKind::hangup()).context("signals")?;
    let world = World::real(&config.outbound).context("outbound connections")?;
    let db = Db::new(Watched::new(open_engine(config)?, world.clone()));
    let server = Server::start(config, world, db).await?;
    for (listener, address) in config.listeners.iter().zip(server.addresses()) {
        let tls = listener.tls.is_some();
        tracing::info!(%address, tls, apis = ?listener.apis, "listening");
    }
    tracing::info!(server = %config.server_name, version = env!("CARGO_PKG_VERSION"), "ready");
    service::say_ready();
    let store = server.house().store.clone();
    let mut pulse = server.house().world.interval(PULSE);
    let writable = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break true,
            _ = interrupt.recv() => break true,
            _ = hang_up.recv() => {
                let admin = server.house().admin.clone();
                server.house().world.spawn("reload", async move { reload(&admin).await });
            }
            due = pulse.tick() => {
                watched::note_delay(server.house().world.instant().saturating_duration_since(due));
                if !observe::is_writable(&store) {
                    break false;
                }
            }
        }
    };
    drop(store);
    tracing::info!("stopping");
    server.stop().await;
    tracing::info!("stopped");
    ensure!(writable, "the database takes no more writes: look at the disk, then start again");
    Ok(())
}

/// Reads every file that the configuration names, as a start would; nothing is opened or made.
pub(crate) fn rehearse(config: &Config) -> Result<()> {
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Some(tls) = &listener.tls {
            Certificate::read(tls).with_context(|| format!("`listeners.{index}.tls`"))?;
        }
    }
    World::real(&config.outbound).map_err(|error| {
        let key = format!("`outbound.{}`", error.key());
        anyhow::Error::from(error).context(key)
    })?;
    config.mail.as_ref().map(files::post).transpose().context("`mail`")?;
    registrations::read(config)?;
    files::provider_secrets(&config.sso).context("`sso.providers.client_secret_file`")?;
    files::shared_secret(&config.admin).context("`admin.registration_shared_secret_file`")?;
    if let Some(livekit) = &config.livekit {
        files::secret(&livekit.api_secret_file).context("`livekit.api_secret_file`")?;
    }
    Ok(())
}

/// Opens the database; fails when another process has it open.
pub(crate) fn open_engine(config: &Config) -> Result<Rocks> {
    make_data_dir(&config.data_dir)?;
    let cache_bytes = config.process.database_cache_mib << 20;
    let options = Options { cache_bytes, ..Options::default() };
    let folder = config.database_dir();
    Rocks::open(&folder, &options, chappe_store::registry::class)
        .with_context(|| format!("opening the database {}", folder.display()))
}

/// Puts a backup where the server will find it. What the lost server said after the backup was made keeps its
/// positions: none of them is given out again, so what clients remember is never mistaken for something else.
pub(crate) async fn restore(config: &Config, folder: &Path) -> Result<chappe_admin::Restored> {
    make_data_dir(&config.data_dir)?;
    let (places, name) = (config.places(), &config.server_name);
    Ok(chappe_admin::restore(folder, &places, name, restored::prepare).await?)
}

/// Makes the data folder for its owner alone. One that is there is left as it is, with a warning if others may enter.
fn make_data_dir(folder: &Path) -> Result<()> {
    let place = || format!("data folder {}", folder.display());
    if let Ok(found) = std::fs::metadata(folder) {
        if found.permissions().mode() & 0o077 != 0 {
            tracing::warn!(folder = %folder.display(), "others may enter the data folder: chmod 700");
        }
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(place)
}
