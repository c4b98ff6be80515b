//! Content scanner (MSC1453): what of a medium may be given out, by ClamAV's daemon or a command.
//!
//! [`Examiner`] scans bytes, [`Scanner`] media: it decrypts what is encrypted, tells kinds of files and remembers verdicts.

mod attachment;
mod clamd;
mod command;
mod config;
mod engine;
mod error;
mod examiner;
mod key;
mod kind;
mod source;
mod target;

use std::{path::Path, sync::Arc, time::Duration};

use chappe_media::{Content, Media, Reach, Wanted};
use quick_cache::sync::Cache;
use tokio::time::Instant;

pub use self::{
    config::Config,
    error::Error,
    examiner::{Examiner, ExaminerDeps},
    target::Target,
};
use self::{engine::Outcome, key::ScannerKey, source::Source};

/// The content scanner: a handle, clones share it.
#[derive(Clone)]
pub struct Scanner(Arc<Inner>);

struct Inner {
    examiner: Examiner,
    media: Media,
    key: ScannerKey,
    /// By what was asked for, see [`Target`].
    verdicts: Cache<[u8; 32], Kept>,
}

/// What is thought of a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Clean,
    NotClean,
    TypeForbidden,
}

/// A verdict that is remembered.
#[derive(Clone, Debug)]
struct Kept {
    verdict: Verdict,
    /// What the configuration said.
    config: Arc<Config>,
    /// SHA-256 of the bytes that were scanned, as they lie on the disk.
    sha256: [u8; 32],
    until: Instant,
}

impl Scanner {
    /// Reads the key that clients encrypt for, or makes one.
    pub fn open(examiner: Examiner, media: Media, key_file: &Path) -> Result<Self, Error> {
        let key = ScannerKey::load_or_create(key_file, examiner.world())?;
        let verdicts = Cache::new(examiner.config().verdicts);
        Ok(Self(Arc::new(Inner { examiner, media, key, verdicts })))
    }

    /// The key that clients encrypt for: Curve25519, in unpadded Base64.
    pub fn public_key(&self) -> String {
        self.0.key.public()
    }

    /// Reads the body of a request for an encrypted medium.
    pub fn read(&self, body: &[u8]) -> Result<Target, Error> {
        Target::read(body, &self.0.key)
    }

    /// Whether nothing has to be scanned to answer for a medium.
    pub fn is_known(&self, target: &Target) -> bool {
        self.kept(&target.digest()).is_some()
    }

    /// A medium that is clean, as it was uploaded.
    pub async fn content(&self, target: &Target, reach: Reach, wait: Duration) -> Result<Content, Error> {
        let digest = target.digest();
        let kept = self.kept(&digest);
        if let Some(kept) = &kept {
            // Nothing is fetched for what is not clean.
            refuse_unclean(kept.verdict)?;
        }
        let (mut content, sha256) =
            self.0.media.for_inspection(&target.server, &target.id, reach, wait).await?;
        // What the medium is now is what was scanned, or it is scanned again.
        if kept.is_none_or(|kept| kept.sha256 != sha256) {
            refuse_unclean(self.judge_once(&digest, target, (&mut content, sha256)).await?)?;
            Source::new(&mut content.file, None).rewind().await?;
        }
        Ok(content)
    }

    /// A thumbnail of a medium that is clean.
    pub async fn thumbnail(
        &self,
        target: &Target,
        wanted: Wanted,
        (reach, asker): (Reach, &str),
        wait: Duration,
    ) -> Result<Content, Error> {
        self.content(target, reach, wait).await?;
        Ok(self.0.media.thumbnail(&target.server, &target.id, wanted, (reach, asker), wait).await?)
    }

    fn kept(&self, digest: &[u8; 32]) -> Option<Kept> {
        let now = self.0.examiner.world().instant();
        let config = self.0.examiner.config();
        self.0.verdicts.get(digest).filter(|kept| kept.until > now && Arc::ptr_eq(&kept.config, &config))
    }

    /// Scans once for all who ask at the time.
    async fn judge_once(
        &self,
        digest: &[u8; 32],
        target: &Target,
        (content, sha256): (&mut Content, [u8; 32]),
    ) -> Result<Verdict, Error> {
        let (now, config) = (self.0.examiner.world().instant(), self.0.examiner.config());
        let counts = |kept: &Kept| kept.sha256 == sha256 && Arc::ptr_eq(&kept.config, &config);
        self.0.verdicts.remove_if(digest, |kept| kept.until <= now || !counts(kept));
        let guard = match self.0.verdicts.get_value_or_guard_async(digest).await {
            Ok(kept) if counts(&kept) => return Ok(kept.verdict),
            Ok(_) => None,
            Err(guard) => Some(guard),
        };
        let (verdict, is_lasting) = self.judge(&config, target, (content, sha256)).await?;
        if let Some(guard) = guard.filter(|_| is_lasting) {
            let minutes = config.verdict_minutes;
            let until = now + Duration::from_secs(minutes.saturating_mul(60));
            // It fails where the place was taken meanwhile.
            let _ = guard.insert(Kept { verdict, config, sha256, until });
        }
        Ok(verdict)
    }

    /// The verdict, and whether it is to be remembered.
    async fn judge(
        &self,
        config: &Config,
        target: &Target,
        (content, sha256): (&mut Content, [u8; 32]),
    ) -> Result<(Verdict, bool), Error> {
        if target.secrets.as_ref().is_some_and(|secrets| secrets.sha256 != sha256) {
            return Err(Error::FailedToDecrypt("the bytes are not those of `hashes.sha256`"));
        }
        let cipher = target.secrets.as_ref().map(attachment::Secrets::cipher);
        let size = content.size;
        let mut source = Source::new(&mut content.file, cipher);
        let head = source.next().await?.unwrap_or_default();
        if !kind::is_let_through(&head, config) {
            return Ok((Verdict::TypeForbidden, true));
        }
        let outcome = match target.secrets {
            None => self.0.examiner.scan_once(&sha256, &mut source, size).await?,
            Some(_) => self.0.examiner.scan(&mut source, size).await?,
        };
        let verdict = match &outcome {
            Outcome::Clean => Verdict::Clean,
            Outcome::Found(_) | Outcome::Exited(_) => Verdict::NotClean,
            Outcome::TooLarge => return Err(Error::NotClean("the file is too large to be scanned")),
        };
        Ok((verdict, self.0.examiner.is_lasting(&outcome)))
    }
}

fn refuse_unclean(verdict: Verdict) -> Result<(), Error> {
    match verdict {
        Verdict::Clean => Ok(()),
        Verdict::NotClean => Err(Error::NotClean("the file is not clean")),
        Verdict::TypeForbidden => Err(Error::TypeForbidden),
    }
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scanner")
    }
}

#[cfg(test)]
mod tests;
