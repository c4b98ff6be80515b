//! Uploads: at once, or to an address that was made ahead.

use bytes::Bytes;
use chappe_store::{
    Direction, Json, Tx,
    media::{Media as Table, MediaByHash, Medium, PendingMedia, UserMedia},
};
use futures_util::Stream;
use ruma::{OwnedMxcUri, OwnedUserId, UserId};

use crate::{Error, Media};

/// Letters and digits of a media id: 143 bits, not to be guessed.
pub(crate) const ID_LENGTH: usize = 24;

/// Letters and digits of a blob's name.
pub(crate) const BLOB_LENGTH: usize = 40;

/// Longest content type and file name that are kept, in bytes.
const LONGEST: usize = 255;

/// What an uploader says of its file.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Who uploads.
    pub user: OwnedUserId,
    /// Content type.
    pub content_type: Option<String>,
    /// File name.
    pub filename: Option<String>,
}

/// An address made ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The address.
    pub uri: OwnedMxcUri,
    /// Until when it may be uploaded to (milliseconds since the Unix epoch).
    pub expires: u64,
}

impl Media {
    /// Takes a file. (`POST /upload`)
    pub async fn upload<E: std::fmt::Display>(
        &self,
        upload: Upload,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<OwnedMxcUri, Error> {
        let id = self.0.world.token(ID_LENGTH);
        let key = (self.0.server_name.clone(), id.clone());
        let medium = self.take(upload, body).await?;
        let mut tx = Tx::new();
        tx.expect_absent::<Table>(&key).put::<Table>(&key, &Json(medium.clone()));
        self.finish(tx, &id, &medium).await?;
        Ok(self.uri(&id))
    }

    /// Makes an address to upload to later. (`POST /create`)
    pub async fn create(&self, user: &UserId) -> Result<Created, Error> {
        let (now, id) = (self.0.world.now(), self.0.world.token(ID_LENGTH));
        let pending =
            self.0.store.read().scan::<PendingMedia>(&user.to_owned(), Direction::Forward, 10_000).await?;
        let (old, alive): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(_, expires)| *expires < now);
        if alive.len() >= self.0.config.pending_per_user {
            return Err(Error::TooManyPending);
        }
        let expires = now + self.0.config.pending_hours * 3_600_000;
        let medium = Medium {
            blob: None,
            size: 0,
            content_type: None,
            filename: None,
            uploader: Some(user.to_owned()),
            created: now,
            expires: Some(expires),
            sha256: None,
            quarantined_by: None,
            protected: false,
        };
        let key = (self.0.server_name.clone(), id.clone());
        let mut tx = Tx::new();
        tx.expect_absent::<Table>(&key).put::<Table>(&key, &Json(medium));
        tx.put::<PendingMedia>(&(user.to_owned(), id.clone()), &expires);
        for ((user, id), _) in old {
            tx.delete::<Table>(&(self.0.server_name.clone(), id.clone()));
            tx.delete::<PendingMedia>(&(user, id));
        }
        self.0.store.commit(tx).await?;
        Ok(Created { uri: self.uri(&id), expires })
    }

    /// Takes the file of an address made ahead. (`PUT /upload/{serverName}/{mediaId}`)
    pub async fn upload_to<E: std::fmt::Display>(
        &self,
        id: &str,
        upload: Upload,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), Error> {
        let key = (self.0.server_name.clone(), id.to_owned());
        let pending = self.0.store.read().get::<Table>(&key).await?.ok_or(Error::NotFound)?;
        if pending.0.uploader.as_deref() != Some(&*upload.user) {
            return Err(Error::NotYours);
        }
        if pending.0.blob.is_some() {
            return Err(Error::AlreadyUploaded);
        }
        if pending.0.expires.is_some_and(|expires| expires < self.0.world.now()) {
            return Err(Error::NotFound);
        }
        let user = upload.user.clone();
        let Medium { quarantined_by, protected, .. } = pending.0.clone();
        let medium = Medium { quarantined_by, protected, ..self.take(upload, body).await? };
        let mut tx = Tx::new();
        tx.expect::<Table>(&key, Some(&pending)).put::<Table>(&key, &Json(medium.clone()));
        tx.delete::<PendingMedia>(&(user, id.to_owned()));
        match self.finish(tx, id, &medium).await {
            Err(Error::Store(chappe_store::Error::Conflict)) => Err(Error::AlreadyUploaded),
            other => other,
        }
    }

    async fn take<E: std::fmt::Display>(
        &self,
        upload: Upload,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Medium, Error> {
        self.check_quota(&upload.user).await?;
        let blob = self.0.world.token(BLOB_LENGTH);
        let written = self.0.blobs.write(&blob, body, self.0.config.max_upload_bytes).await?;
        Ok(Medium {
            blob: Some(blob),
            size: written.size,
            content_type: upload.content_type.and_then(kept),
            filename: upload.filename.and_then(kept),
            uploader: Some(upload.user),
            created: self.0.world.now(),
            expires: None,
            sha256: Some(written.sha256),
            quarantined_by: None,
            protected: false,
        })
    }

    /// Commits; a blob that nobody can name is removed again.
    async fn finish(&self, mut tx: Tx, id: &str, medium: &Medium) -> Result<(), Error> {
        if let Some(user) = &medium.uploader {
            tx.put::<UserMedia>(&(user.clone(), medium.created, id.to_owned()), &medium.size);
        }
        if let Some(hash) = medium.sha256 {
            tx.put::<MediaByHash>(&(hash, self.0.server_name.clone(), id.to_owned()), &());
        }
        if let Err(error) = self.0.store.commit(tx).await {
            self.0.blobs.remove(medium.blob.as_deref().unwrap_or_default()).await;
            return Err(error.into());
        }
        Ok(())
    }

    async fn check_quota(&self, user: &UserId) -> Result<(), Error> {
        let limit = self.0.config.max_bytes_per_user;
        if limit == 0 {
            return Ok(());
        }
        let reader = self.0.store.read();
        let files = reader.scan::<UserMedia>(&user.to_owned(), Direction::Forward, usize::MAX).await?;
        let taken: u64 = files.iter().map(|(_, size)| size).sum();
        if taken < limit { Ok(()) } else { Err(Error::QuotaExceeded) }
    }

    fn uri(&self, id: &str) -> OwnedMxcUri {
        format!("mxc://{}/{id}", self.0.server_name).into()
    }
}

/// A text that is kept: short and printable.
pub(crate) fn kept(text: String) -> Option<String> {
    let good = !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control);
    good.then_some(text)
}
