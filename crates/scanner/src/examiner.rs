//! Files by the hash of their bytes: what is scanned where media are asked for beside the scanner's own endpoints is
//! remembered on disk.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use chappe_media::Inspector;
use chappe_store::{
    Direction, Json, Store, Tx,
    media::{Verdict, Verdicts, VerdictsByAge},
};
use chappe_world::{Live, World};
use quick_cache::sync::Cache;
use tokio::{fs::File, time::Instant};

use crate::{
    Config, Error,
    engine::{Engine, Outcome},
    source::Source,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long a file whose scan came to nothing is left alone.
const TROUBLE: Duration = Duration::from_secs(30);
/// Such files that are remembered.
const TROUBLES: usize = 10_000;
/// Verdicts that are removed in one go.
const PAGE: usize = 500;

/// What scans files: a handle, clones share it.
#[derive(Clone)]
pub struct Examiner(Arc<Inner>);

struct Inner {
    engine: Engine,
    store: Store,
    world: World,
    config: Live<Config>,
    /// Files whose scan came to nothing, until when nobody tries again, and whether they are too large: whoever asks for one
    /// over and over keeps no place from others.
    troubles: Cache<[u8; 32], (Instant, bool)>,
}

/// What an [`Examiner`] is built from.
pub struct ExaminerDeps {
    /// The store.
    pub store: Store,
    /// The outside world.
    pub world: World,
    /// The folder of files in clear that a command is given; nothing else may be in it.
    pub folder: PathBuf,
}

impl Examiner {
    /// None where the configuration names nothing that scans. Removes files in clear that a crash left.
    pub async fn open(deps: ExaminerDeps, config: Config) -> Result<Option<Self>, Error> {
        let ExaminerDeps { store, world, folder } = deps;
        let engine = Engine::open(world.clone(), folder, &config).await?;
        Ok(engine.map(|engine| {
            let config = Live::new(config);
            Self(Arc::new(Inner { engine, store, world, config, troubles: Cache::new(TROUBLES) }))
        }))
    }

    /// Removes verdicts that are too old to count; meant to be called every few minutes.
    pub async fn sweep(&self) -> Result<(), Error> {
        let before = self.0.world.now().saturating_sub(self.kept_ms());
        loop {
            let reader = self.0.store.read();
            let page = reader.scan::<VerdictsByAge>(&(), Direction::Forward, PAGE).await?;
            let old: Vec<_> =
                page.into_iter().map(|(key, ())| key).take_while(|(at, _)| *at < before).collect();
            drop(reader);
            let mut tx = Tx::new();
            for (at, hash) in &old {
                tx.delete::<VerdictsByAge>(&(*at, *hash)).delete::<Verdicts>(hash);
            }
            if old.is_empty() {
                return Ok(());
            }
            self.0.store.commit(tx).await?;
        }
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.0.config.get()
    }

    /// Goes on with another section, but for what scans and how many files at a time. What was thought of files by the old one
    /// counts no more in memory.
    pub fn reconfigure(&self, config: Config) {
        if *self.config() != config {
            self.0.config.set(config);
        }
    }

    pub(crate) fn world(&self) -> &World {
        &self.0.world
    }

    /// Scans bytes whatever is known of them.
    pub(crate) async fn scan(&self, source: &mut Source<'_>, size: u64) -> Result<Outcome, Error> {
        self.0.engine.scan(&self.config(), source, size).await
    }

    /// Scans bytes in clear, unless it is known on disk what they are.
    pub(crate) async fn scan_once(
        &self,
        sha256: &[u8; 32],
        source: &mut Source<'_>,
        size: u64,
    ) -> Result<Outcome, Error> {
        if !self.is_on() {
            return self.scan(source, size).await;
        }
        let before = self.verdict(sha256).await?;
        let now = self.0.world.now();
        if let Some(verdict) = before.filter(|verdict| self.counts(verdict)) {
            return Ok(if verdict.clean { Outcome::Clean } else { Outcome::Found(String::new()) });
        }
        if let Some(too_large) = self.trouble(sha256) {
            let said = "the last scan failed a moment ago".to_owned();
            return if too_large { Ok(Outcome::TooLarge) } else { Err(Error::Engine(said)) };
        }
        let outcome = self.scan(source, size).await;
        // A scanner that is away, or says that it is about the moment, is asked again at once.
        if let Ok(Outcome::TooLarge) | Err(Error::Engine(_) | Error::Disk(_)) = &outcome {
            let until = self.0.world.instant() + TROUBLE;
            self.0.troubles.insert(*sha256, (until, outcome.is_ok()));
        }
        let outcome = outcome?;
        if self.is_lasting(&outcome) {
            let verdict = Verdict { clean: outcome == Outcome::Clean, at: now };
            let mut tx = Tx::new();
            if let Some(before) = &before {
                tx.delete::<VerdictsByAge>(&(before.at, *sha256));
            }
            tx.expect::<Verdicts>(sha256, before.map(Json).as_ref()).put::<Verdicts>(sha256, &Json(verdict));
            tx.put::<VerdictsByAge>(&(now, *sha256), &());
            match self.0.store.commit(tx).await {
                // Somebody else has just found the same.
                Ok(_) | Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(outcome)
    }

    /// What was thought of bytes in clear, however long ago.
    pub(crate) async fn verdict(&self, sha256: &[u8; 32]) -> Result<Option<Verdict>, Error> {
        Ok(self.0.store.read().get::<Verdicts>(sha256).await?.map(|Json(verdict)| verdict))
    }

    fn counts(&self, verdict: &Verdict) -> bool {
        verdict.at + self.kept_ms() > self.0.world.now()
    }

    /// Whether a scan of these bytes has just come to nothing, and if so because they are too many.
    fn trouble(&self, sha256: &[u8; 32]) -> Option<bool> {
        let (until, too_large) = self.0.troubles.get(sha256)?;
        (until > self.0.world.instant()).then_some(too_large)
    }

    /// Whether an outcome says something about the file that will be so tomorrow.
    pub(crate) fn is_lasting(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Clean | Outcome::Found(_) => true,
            Outcome::Exited(code) => !self.config().passing_exit_codes.contains(code),
            Outcome::TooLarge => false,
        }
    }

    fn kept_ms(&self) -> u64 {
        self.config().enforced_days.saturating_mul(DAY_MS)
    }
}

#[async_trait]
impl Inspector for Examiner {
    fn is_on(&self) -> bool {
        self.config().enforce
    }

    async fn is_clean(&self, sha256: &[u8; 32], file: &mut File, size: u64) -> Result<bool, String> {
        let outcome = self.scan_once(sha256, &mut Source::new(file, None), size).await;
        outcome.map(|outcome| outcome == Outcome::Clean).map_err(|error| error.to_string())
    }

    async fn is_known(&self, sha256: &[u8; 32]) -> Result<bool, String> {
        let verdict = self.verdict(sha256).await.map_err(|error| error.to_string())?;
        Ok(verdict.is_some_and(|verdict| self.counts(&verdict)) || self.trouble(sha256).is_some())
    }
}

impl std::fmt::Debug for Examiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Examiner")
    }
}
