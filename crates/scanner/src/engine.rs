//! What scans: ClamAV's daemon or a command, some files at a time, each within its time.

use std::{path::PathBuf, time::Duration};

use chappe_world::{Socket, World};
use tokio::sync::Semaphore;

use crate::{
    Config, Error, clamd,
    command::{self, Folder},
    source::Source,
};

/// How long a file waits for a place.
const WAIT: Duration = Duration::from_secs(30);

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Clean,
    /// Something of this name.
    Found(String),
    /// A command ended with this code, which is not 0.
    Exited(i32),
    /// Not known: it is larger than what is scanned.
    TooLarge,
}

enum Kind {
    Clamd(Socket),
    Command(Vec<PathBuf>, Folder),
}

pub(crate) struct Engine {
    world: World,
    kind: Kind,
    places: Semaphore,
}

impl Engine {
    /// The engine that the configuration names, if it names one. `folder` is where files in clear are put for a command.
    pub(crate) async fn open(world: World, folder: PathBuf, config: &Config) -> Result<Option<Self>, Error> {
        let kind = match (&config.clamd, &*config.command) {
            (Some(socket), _) => Kind::Clamd(socket.clone()),
            (None, []) => return Ok(None),
            (None, command) => Kind::Command(command.to_vec(), Folder::open(folder).await?),
        };
        Ok(Some(Self {
            world,
            kind,
            places: Semaphore::new(config.at_once.clamp(1, Semaphore::MAX_PERMITS)),
        }))
    }

    /// Scans a file of so many bytes.
    pub(crate) async fn scan(
        &self,
        config: &Config,
        source: &mut Source<'_>,
        size: u64,
    ) -> Result<Outcome, Error> {
        if size > config.max_bytes {
            return Ok(Outcome::TooLarge);
        }
        let place = self.world.timeout(WAIT, self.places.acquire()).await;
        let _place = place.and_then(Result::ok).ok_or(chappe_media::Error::Busy)?;
        let scan = async {
            match &self.kind {
                Kind::Clamd(socket) => clamd::scan(&self.world, socket, source).await,
                Kind::Command(command, folder) => command::scan((&self.world, folder), command, source).await,
            }
        };
        let patience = Duration::from_secs(config.timeout_seconds);
        let late = || Err(Error::Engine("no answer in time".to_owned()));
        let outcome = self.world.timeout(patience, scan).await.unwrap_or_else(late)?;
        if outcome != Outcome::Clean {
            tracing::warn!(?outcome, "a file is not clean");
        }
        Ok(outcome)
    }
}
