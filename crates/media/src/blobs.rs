//! Blobs: files with random names in two levels of folders. A blob exists whole or not at all.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use ring::digest::{Context, SHA256};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncWriteExt},
};

use crate::Error;

pub(crate) struct Blobs {
    directory: PathBuf,
}

/// A file in the making, removed when it is dropped: whoever uploads or asks may hang up at any time.
struct Unfinished(PathBuf);

impl Unfinished {
    /// It lies elsewhere now.
    fn finished(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Bytes.
    pub(crate) size: u64,
    /// Their SHA-256.
    pub(crate) sha256: [u8; 32],
}

impl Blobs {
    pub(crate) async fn open(directory: PathBuf) -> Result<Self, Error> {
        let unfinished = directory.join("unfinished");
        if fs::try_exists(&unfinished).await? {
            fs::remove_dir_all(&unfinished).await?;
        }
        fs::create_dir_all(&unfinished).await?;
        Ok(Self { directory })
    }

    /// Where a blob lies. Names are letters and digits of our own making.
    fn path(&self, blob: &str) -> PathBuf {
        let (first, rest) = blob.split_at(blob.len().min(2));
        let (second, rest) = rest.split_at(rest.len().min(2));
        self.directory.join(first).join(second).join(rest)
    }

    /// Writes a blob of `limit` bytes at most; durable when it answers.
    pub(crate) async fn write<E: std::fmt::Display>(
        &self,
        blob: &str,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
        limit: u64,
    ) -> Result<Written, Error> {
        let unfinished = Unfinished(self.directory.join("unfinished").join(blob));
        let written = Self::fill(&unfinished.0, body, limit).await?;
        let path = self.path(blob);
        let folder = path.parent().unwrap_or(&self.directory).to_owned();
        fs::create_dir_all(&folder).await?;
        fs::rename(&unfinished.0, &path).await?;
        unfinished.finished();
        for folder in [Some(&*folder), folder.parent()].into_iter().flatten() {
            File::open(folder).await?.sync_all().await?;
        }
        Ok(written)
    }

    async fn fill<E: std::fmt::Display>(
        path: &PathBuf,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
        limit: u64,
    ) -> Result<Written, Error> {
        let mut file = File::create_new(path).await?;
        let (mut size, mut hash) = (0_u64, Context::new(&SHA256));
        let mut body = std::pin::pin!(body);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| Error::BrokeOff(error.to_string()))?;
            size += piece.len() as u64;
            if size > limit {
                return Err(Error::TooLarge);
            }
            hash.update(&piece);
            file.write_all(&piece).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        Ok(Written { size, sha256: finished(hash) })
    }

    /// Opens a blob for reading.
    pub(crate) async fn read(&self, blob: &str) -> Result<File, Error> {
        match File::open(self.path(blob)).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound),
            other => Ok(other?),
        }
    }

    /// The SHA-256 of a blob.
    pub(crate) async fn sha256(&self, blob: &str) -> Result<[u8; 32], Error> {
        let mut file = self.read(blob).await?;
        let (mut hash, mut piece) = (Context::new(&SHA256), vec![0; 64 << 10]);
        loop {
            match file.read(&mut piece).await? {
                0 => return Ok(finished(hash)),
                count => hash.update(&piece[..count]),
            }
        }
    }

    /// A blob as bytes.
    pub(crate) async fn whole(&self, blob: &str) -> Result<Vec<u8>, Error> {
        Ok(fs::read(self.path(blob)).await?)
    }

    /// Removes a blob; none is fine.
    pub(crate) async fn remove(&self, blob: &str) {
        if let Err(error) = fs::remove_file(self.path(blob)).await {
            tracing::debug!(%error, "a blob could not be removed");
        }
    }
}

fn finished(hash: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}
