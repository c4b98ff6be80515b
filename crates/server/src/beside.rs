//! What runs beside this server and is named by the configuration: what scans files, the SFU of calls; what counts.

use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use chappe_admin::{Statistics, StatisticsDeps};
use chappe_calls::{Calls, Leaves};
use chappe_federation::Federation;
use chappe_media::{Inspector, Media};
use chappe_rooms::Rooms;
use chappe_scanner::{Examiner, ExaminerDeps, Scanner};
use chappe_store::Store;
use chappe_world::World;

use crate::{config::Config, files::secret};

/// What scans files, if there is something.
pub(crate) async fn examiner(config: &Config, world: &World, store: &Store) -> Result<Option<Examiner>> {
    let deps = ExaminerDeps { store: store.clone(), world: world.clone(), folder: config.scanner_dir() };
    Examiner::open(deps, config.scanner.clone()).await.context("opening the scanner's folder")
}

/// The same as what looks at all media, while that is wanted.
pub(crate) fn inspector(examiner: Option<&Examiner>) -> Option<Arc<dyn Inspector>> {
    Some(Arc::new(examiner?.clone()))
}

/// The content scanner of clients.
pub(crate) fn scanner(
    config: &Config,
    examiner: Option<&Examiner>,
    media: &Media,
) -> Result<Option<Scanner>> {
    let file = config.scanner_key_file();
    let open = |examiner: &Examiner| Scanner::open(examiner.clone(), media.clone(), &file);
    examiner.map(open).transpose().with_context(|| file.display().to_string())
}

/// Access to the SFU, if there is one.
pub(crate) fn calls(
    config: &Config,
    world: &World,
    (federation, rooms): (&Federation, &Rooms),
) -> Result<Option<Calls>> {
    let Some(livekit) = &config.livekit else { return Ok(None) };
    let deps = chappe_calls::Deps {
        world: world.clone(),
        server: config.server_name.clone(),
        homeservers: Arc::new(federation.clone()),
        leaves: Arc::new(DelayedLeaves(rooms.clone())),
        api_secret: secret(&livekit.api_secret_file)?,
    };
    Ok(Some(Calls::new(deps, livekit.clone())))
}

/// The delayed events of this server, for calls.
struct DelayedLeaves(Rooms);

#[async_trait]
impl Leaves for DelayedLeaves {
    async fn put_off(&self, delay_id: &str) -> Result<bool, String> {
        waits(self.0.restart_delayed(delay_id).await)
    }

    async fn send(&self, delay_id: &str) -> Result<(), String> {
        waits(self.0.send_delayed(delay_id).await).map(drop)
    }
}

/// Whether an event still waited; what is refused ends at its time.
fn waits<T>(done: Result<T, chappe_rooms::Error>) -> Result<bool, String> {
    match done {
        Ok(_) => Ok(true),
        Err(error @ (chappe_rooms::Error::Retry | chappe_rooms::Error::Store(_))) => Err(error.to_string()),
        Err(_) => Ok(false),
    }
}

/// What is counted.
pub(crate) async fn statistics(
    config: &Config,
    (world, store): (&World, &Store),
    (rooms, media): (&Rooms, &Media),
) -> Result<Statistics> {
    let deps = StatisticsDeps {
        world: world.clone(),
        store: store.clone(),
        server: config.server_name.clone(),
        rooms: rooms.clone(),
        media: media.clone(),
    };
    Statistics::open(deps, config.admin.statistics.clone()).await.context("statistics")
}
