//! Blobs: files with random names in two levels of folders. A blob exists whole or not at all.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::{
    fs::{self, File},
    io::AsyncWriteExt,
};

use crate::Error;

pub(crate) struct Blobs {
    directory: PathBuf,
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

    /// Writes a blob of `limit` bytes at most; durable when it answers. Gives its size.
    pub(crate) async fn write<E: std::fmt::Display>(
        &self,
        blob: &str,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
        limit: u64,
    ) -> Result<u64, Error> {
        let unfinished = self.directory.join("unfinished").join(blob);
        let written = Self::fill(&unfinished, body, limit).await;
        let size = match written {
            Ok(size) => size,
            Err(error) => {
                let _ = fs::remove_file(&unfinished).await;
                return Err(error);
            }
        };
        let path = self.path(blob);
        let folder = path.parent().unwrap_or(&self.directory).to_owned();
        fs::create_dir_all(&folder).await?;
        fs::rename(&unfinished, &path).await?;
        for folder in [Some(&*folder), folder.parent()].into_iter().flatten() {
            File::open(folder).await?.sync_all().await?;
        }
        Ok(size)
    }

    async fn fill<E: std::fmt::Display>(
        path: &PathBuf,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
        limit: u64,
    ) -> Result<u64, Error> {
        let mut file = File::create_new(path).await?;
        let mut size = 0_u64;
        let mut body = std::pin::pin!(body);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| Error::BrokeOff(error.to_string()))?;
            size += piece.len() as u64;
            if size > limit {
                return Err(Error::TooLarge);
            }
            file.write_all(&piece).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        Ok(size)
    }

    /// Opens a blob for reading.
    pub(crate) async fn read(&self, blob: &str) -> Result<File, Error> {
        match File::open(self.path(blob)).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound),
            other => Ok(other?),
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
