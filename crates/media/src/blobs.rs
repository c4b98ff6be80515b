//! Blobs: files with random names in two levels of folders. A blob exists whole or not at all.

use std::{collections::HashSet, path::PathBuf};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use ring::digest::{Context, SHA256};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncWriteExt},
};

use crate::Error;

/// Where what arrives is written.
const UNFINISHED: &str = "unfinished";
/// Where blobs are marked, by an empty file of their name.
const MARKS: &str = "marked";

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

/// What has arrived whole and has no place yet.
pub(crate) struct Received {
    unfinished: Unfinished,
    /// The name of the blob.
    pub(crate) blob: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Their SHA-256.
    pub(crate) sha256: [u8; 32],
}

impl Blobs {
    /// Opens the folder. Gives blobs of which it is not known whether anything names them: what was done with them was
    /// interrupted.
    pub(crate) async fn open(directory: PathBuf) -> Result<(Self, HashSet<String>), Error> {
        let unfinished = directory.join(UNFINISHED);
        if fs::try_exists(&unfinished).await? {
            fs::remove_dir_all(&unfinished).await?;
        }
        fs::create_dir_all(&unfinished).await?;
        let marks = directory.join(MARKS);
        fs::create_dir_all(&marks).await?;
        let (mut marked, mut entries) = (HashSet::new(), fs::read_dir(&marks).await?);
        while let Some(entry) = entries.next_entry().await? {
            marked.extend(entry.file_name().into_string());
        }
        Ok((Self { directory }, marked))
    }

    /// Where a blob lies. Names are letters and digits of our own making.
    pub(crate) fn path(&self, blob: &str) -> PathBuf {
        let (first, rest) = blob.split_at(blob.len().min(2));
        let (second, rest) = rest.split_at(rest.len().min(2));
        self.directory.join(first).join(second).join(rest)
    }

    /// Takes the bytes of a blob, `limit` at most.
    pub(crate) async fn receive<E: std::fmt::Display>(
        &self,
        blob: String,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
        limit: u64,
    ) -> Result<Received, Error> {
        let unfinished = Unfinished(self.directory.join(UNFINISHED).join(&blob));
        let mut file = File::create_new(&unfinished.0).await?;
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
        Ok(Received { unfinished, blob, size, sha256: finished(hash) })
    }

    /// Puts a blob in its place, marked until [`Blobs::settle`]; durable when it answers.
    pub(crate) async fn place(&self, received: Received) -> Result<(), Error> {
        self.mark(&received.blob).await?;
        let path = self.path(&received.blob);
        let folder = path.parent().unwrap_or(&self.directory).to_owned();
        fs::create_dir_all(&folder).await?;
        fs::rename(&received.unfinished.0, &path).await?;
        received.unfinished.finished();
        for folder in [Some(&*folder), folder.parent()].into_iter().flatten() {
            File::open(folder).await?.sync_all().await?;
        }
        Ok(())
    }

    /// Marks a blob while it is not known whether anything will name it: a crash must not leave a file for ever. Durable
    /// when it answers.
    pub(crate) async fn mark(&self, blob: &str) -> Result<(), Error> {
        let marks = self.directory.join(MARKS);
        File::create(marks.join(blob)).await?;
        File::open(marks).await?.sync_all().await?;
        Ok(())
    }

    /// Takes the mark away: something names the blob.
    pub(crate) async fn settle(&self, blob: &str) {
        gone(fs::remove_file(self.directory.join(MARKS).join(blob)).await);
    }

    /// Whether there is a blob of that name.
    pub(crate) async fn is_there(&self, blob: &str) -> Result<bool, Error> {
        Ok(fs::try_exists(self.path(blob)).await?)
    }

    /// Opens a blob for reading.
    pub(crate) async fn read(&self, blob: &str) -> Result<File, Error> {
        found(File::open(self.path(blob)).await)
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
        found(fs::read(self.path(blob)).await)
    }

    /// Removes a blob and its mark; none is fine.
    pub(crate) async fn remove(&self, blob: &str) {
        if gone(fs::remove_file(self.path(blob)).await) {
            self.settle(blob).await;
        }
    }
}

/// What was opened or read; a file that is not there is not found.
fn found<T>(read: std::io::Result<T>) -> Result<T, Error> {
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound,
        _ => error.into(),
    })
}

/// Whether a file is not there any more.
fn gone(removed: std::io::Result<()>) -> bool {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "a file of a medium could not be removed");
            false
        }
        _ => true,
    }
}

fn finished(hash: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}
