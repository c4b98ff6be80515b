//! Uploads: at once, or to an address that was made ahead.

use std::time::Duration;

use bytes::Bytes;
use chappe_store::{
    Direction, Json, Tx,
    media::{Media as Table, MediaByHash, Medium, PendingMedia, UserBytes, UserMedia},
};
use futures_util::Stream;
use ruma::{OwnedMxcUri, OwnedUserId, UserId};

use crate::{Error, Media, blobs::Received, quarantine::again, stewardship::counted};

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
        let _place = self.place_to_upload(&upload.user).await?;
        let id = self.0.world.token(ID_LENGTH);
        let received = self.take(&upload.user, body).await?;
        let medium = self.uploaded(upload, &received);
        self.finish(received, id.clone(), (None, medium)).await?;
        Ok(self.uri(&id))
    }

    /// Makes an address to upload to later. (`POST /create`)
    pub async fn create(&self, user: &UserId) -> Result<Created, Error> {
        let (now, id) = (self.0.world.now(), self.0.world.token(ID_LENGTH));
        let pending =
            self.0.store.read().scan::<PendingMedia>(&user.to_owned(), Direction::Forward, 10_000).await?;
        let (old, alive): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(_, expires)| *expires < now);
        if alive.len() >= self.config().pending_per_user {
            return Err(Error::TooManyPending);
        }
        let expires = now + self.config().pending_hours * 3_600_000;
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
        let _place = self.place_to_upload(&upload.user).await?;
        let received = self.take(&upload.user, body).await?;
        let Medium { quarantined_by, protected, created, .. } = pending.0.clone();
        let medium = Medium { quarantined_by, protected, created, ..self.uploaded(upload, &received) };
        match self.finish(received, id.to_owned(), (Some(pending), medium)).await {
            Err(Error::Store(chappe_store::Error::Conflict)) => Err(Error::AlreadyUploaded),
            other => other,
        }
    }

    /// Takes the bytes, no more than the user has room for and not for ever.
    async fn take<E: std::fmt::Display>(
        &self,
        user: &OwnedUserId,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Received, Error> {
        let config = self.config();
        let room = self.room_of(user).await?;
        let blob = self.0.world.token(BLOB_LENGTH);
        let receiving = self.0.blobs.receive(blob, body, config.max_upload_bytes.min(room));
        let in_time = self.0.world.timeout(Duration::from_secs(config.upload_seconds), receiving).await;
        match in_time.ok_or_else(|| Error::BrokeOff("it took too long".to_owned()))? {
            Err(Error::TooLarge) if room < config.max_upload_bytes => Err(Error::QuotaExceeded),
            received => received,
        }
    }

    pub(crate) fn uploaded(&self, upload: Upload, received: &Received) -> Medium {
        Medium {
            blob: Some(received.blob.clone()),
            size: received.size,
            content_type: upload.content_type.and_then(kept),
            filename: upload.filename.and_then(kept),
            uploader: Some(upload.user),
            created: self.0.world.now(),
            expires: None,
            sha256: Some(received.sha256),
            quarantined_by: None,
            protected: false,
        }
    }

    /// Keeps an upload: the row it replaces, if any, and the new one.
    pub(crate) async fn finish(
        &self,
        received: Received,
        id: String,
        (pending, medium): (Option<Json<Medium>>, Medium),
    ) -> Result<(), Error> {
        let media = self.clone();
        let commit = async move {
            let Some(user) = medium.uploader.clone() else { return Err(Error::NotYours) };
            // For speed alone: the sum is expected to be what was read.
            let _turn = media.turn(&format!("bytes of {user}")).await;
            again(|| media.enter(&user, &id, (pending.as_ref(), &medium))).await
        };
        self.keep(received, commit).await
    }

    async fn enter(
        &self,
        user: &OwnedUserId,
        id: &str,
        (pending, medium): (Option<&Json<Medium>>, &Medium),
    ) -> Result<(), Error> {
        let (key, mut tx) = ((self.0.server_name.clone(), id.to_owned()), Tx::new());
        tx.expect::<Table>(&key, pending).put::<Table>(&key, &Json(medium.clone()));
        if pending.is_some() {
            tx.delete::<PendingMedia>(&(user.clone(), id.to_owned()));
        }
        tx.put::<UserMedia>(&(user.clone(), medium.created, id.to_owned()), &medium.size);
        if let Some(hash) = medium.sha256 {
            tx.put::<MediaByHash>(&(hash, key.0, key.1), &());
        }
        let (known, before) = self.bytes_of(user).await?;
        let taken = before.saturating_add(medium.size);
        let most = self.config().max_bytes_per_user;
        if most > 0 && taken > most {
            return Err(Error::QuotaExceeded);
        }
        tx.expect::<UserBytes>(user, known.as_ref()).put::<UserBytes>(user, &taken);
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// What is left of a user's space, in bytes.
    async fn room_of(&self, user: &OwnedUserId) -> Result<u64, Error> {
        match self.config().max_bytes_per_user {
            0 => Ok(u64::MAX),
            most => match most.saturating_sub(self.bytes_of(user).await?.1) {
                0 => Err(Error::QuotaExceeded),
                room => Ok(room),
            },
        }
    }

    /// What is written of a user's bytes, and their sum: where it is not written yet, of all that was uploaded. Whoever
    /// changes what was uploaded writes it, expecting what was read here.
    async fn bytes_of(&self, user: &OwnedUserId) -> Result<(Option<u64>, u64), Error> {
        let reader = self.0.store.read();
        let known = reader.get::<UserBytes>(user).await?;
        let sum = match known {
            Some(sum) => sum,
            None => counted(&reader, user).await?,
        };
        Ok((known, sum))
    }

    /// Notes in a batch that a user's uploads are fewer.
    pub(crate) async fn draft_freed(&self, tx: &mut Tx, user: &OwnedUserId, bytes: u64) -> Result<(), Error> {
        let (known, sum) = self.bytes_of(user).await?;
        tx.expect::<UserBytes>(user, known.as_ref());
        tx.put::<UserBytes>(user, &sum.saturating_sub(bytes));
        Ok(())
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
