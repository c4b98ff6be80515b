//! Giving media out: our own, and those of other servers, fetched once.

use std::time::Duration;

use chappe_store::{
    Json, Tx,
    media::{Media as Table, MediaByHash, Medium},
};
use ruma::ServerName;
use tokio::fs::File;

use crate::{
    Error, Media, RemoteError,
    upload::{BLOB_LENGTH, kept},
};

/// A medium, open for reading.
#[derive(Debug)]
pub struct Content {
    /// Content type as the uploader gave it.
    pub content_type: Option<String>,
    /// File name as the uploader gave it.
    pub filename: Option<String>,
    /// Bytes.
    pub size: u64,
    /// The bytes.
    pub file: File,
}

/// How far to go for a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Our own media alone.
    Local,
    /// What is here, of whichever server.
    Kept,
    /// Other servers are asked.
    Anywhere,
}

/// How often it is looked whether an announced upload has come.
const LOOK: Duration = Duration::from_millis(200);

impl Media {
    /// Gives a medium out. `wait` is for uploads that were announced but not made yet.
    pub async fn content(
        &self,
        server: &ServerName,
        id: &str,
        reach: Reach,
        wait: Duration,
    ) -> Result<Content, Error> {
        let medium = self.find(server, id, reach, wait).await?;
        self.inspect(server, id, &medium).await?;
        self.saw(server, id);
        self.open_content(medium).await
    }

    pub(crate) async fn open_content(&self, medium: Medium) -> Result<Content, Error> {
        let blob = medium.blob.as_deref().ok_or(Error::NotFound)?;
        let file = self.0.blobs.read(blob).await?;
        let Medium { content_type, filename, size, .. } = medium;
        Ok(Content { content_type, filename, size, file })
    }

    pub(crate) async fn find(
        &self,
        server: &ServerName,
        id: &str,
        reach: Reach,
        wait: Duration,
    ) -> Result<Medium, Error> {
        if !is_media_id(id) || (reach == Reach::Local && !self.is_local(server)) {
            return Err(Error::NotFound);
        }
        let medium = match self.known(server, id).await? {
            Some(medium) if medium.blob.is_some() || medium.quarantined_by.is_some() => medium,
            Some(_) => self.awaited(server, id, wait).await?,
            None if self.is_local(server) || reach != Reach::Anywhere => return Err(Error::NotFound),
            None => self.fetched(server, id, wait).await?,
        };
        self.check_quarantine(server, id, &medium).await?;
        Ok(medium)
    }

    /// Whether nothing has to be fetched for a medium: it is here, or ours to have.
    pub async fn is_kept(&self, server: &ServerName, id: &str) -> Result<bool, Error> {
        Ok(self.is_local(server) || !is_media_id(id) || self.known(server, id).await?.is_some())
    }

    /// Whether those who are not logged in may have a medium as far as its age goes: it came here before the freeze, or is
    /// not here and nothing is frozen. (client-server API, "Content repository")
    pub async fn is_from_before_freeze(&self, server: &ServerName, id: &str) -> Result<bool, Error> {
        let Some(frozen_since) = self.config().frozen_since else { return Ok(true) };
        if !is_media_id(id) {
            return Ok(false);
        }
        Ok(self.known(server, id).await?.is_some_and(|medium| medium.created < frozen_since))
    }

    pub(crate) async fn known(&self, server: &ServerName, id: &str) -> Result<Option<Medium>, Error> {
        let found = self.0.store.read().get::<Table>(&(server.to_owned(), id.to_owned())).await?;
        Ok(found.map(|Json(medium)| medium))
    }

    async fn awaited(&self, server: &ServerName, id: &str, wait: Duration) -> Result<Medium, Error> {
        let world = &self.0.world;
        let until = world.instant() + wait;
        loop {
            match self.known(server, id).await? {
                Some(medium) if medium.blob.is_some() => return Ok(medium),
                Some(medium) if medium.expires.is_some_and(|expires| expires < world.now()) => {
                    return Err(Error::NotFound);
                }
                None => return Err(Error::NotFound),
                Some(_) if world.instant() >= until || world.is_stopping() => {
                    return Err(Error::NotYetUploaded);
                }
                Some(_) => world.sleep(LOOK).await,
            }
        }
    }

    /// Fetches from the medium's server, once for all who ask at the time.
    async fn fetched(&self, server: &ServerName, id: &str, wait: Duration) -> Result<Medium, Error> {
        let _turn = self.turn(&format!("{server}/{id}")).await;
        if let Some(medium) = self.known(server, id).await? {
            return Ok(medium);
        }
        let _places = self.places_from(server).await?;
        let limit = self.config().max_remote_bytes;
        let content = self.0.remote.download(server, id, limit, wait).await.map_err(|error| match error {
            RemoteError::NotFound => Error::NotFound,
            RemoteError::Unavailable(why) => Error::RemoteFailed(why),
        })?;
        let blob = self.0.world.token(BLOB_LENGTH);
        let received =
            self.0.blobs.receive(blob, content.body, limit).await.map_err(|error| match error {
                Error::BrokeOff(why) => Error::RemoteFailed(why),
                Error::TooLarge => Error::RemoteTooLarge,
                other => other,
            })?;
        let medium = Medium {
            blob: Some(received.blob.clone()),
            size: received.size,
            content_type: content.content_type.and_then(kept),
            filename: content.filename.and_then(kept),
            uploader: None,
            created: self.0.world.now(),
            expires: None,
            sha256: Some(received.sha256),
            quarantined_by: None,
            protected: false,
        };
        let key = (server.to_owned(), id.to_owned());
        let (media, kept) = (self.clone(), medium.clone());
        let (size, sha256) = (received.size, received.sha256);
        let commit = async move {
            let mut tx = Tx::new();
            tx.put::<MediaByHash>(&(sha256, key.0.clone(), key.1.clone()), &());
            tx.expect_absent::<Table>(&key).put::<Table>(&key, &Json(kept));
            media.0.store.commit(tx).await?;
            media.remote_grew(size);
            Ok(())
        };
        match self.keep(received, commit).await {
            // Put under quarantine meanwhile.
            Err(Error::Store(chappe_store::Error::Conflict)) => {
                self.known(server, id).await?.ok_or(Error::NotFound)
            }
            done => done.map(|()| medium),
        }
    }
}

/// Media ids are opaque, but only these characters are legal (client-server API, "Matrix Content (`mxc://`) URIs").
pub(crate) fn is_media_id(id: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !id.is_empty() && id.len() <= 255 && id.bytes().all(legal)
}
