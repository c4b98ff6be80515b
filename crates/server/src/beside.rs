//! What runs beside this server and is named by the configuration: what scans files, the SFU of calls; what counts.

use std::sync::Arc;

use anyhow::{Context, Result};
use chappe_admin::{Statistics, StatisticsDeps};
use chappe_calls::Calls;
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
pub(crate) fn calls(config: &Config, world: &World, federation: &Federation) -> Result<Option<Calls>> {
    let Some(livekit) = &config.livekit else { return Ok(None) };
    let deps = chappe_calls::Deps {
        world: world.clone(),
        server: config.server_name.clone(),
        homeservers: Arc::new(federation.clone()),
        api_secret: secret(&livekit.api_secret_file)?,
    };
    Ok(Some(Calls::new(deps, livekit.clone())))
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
