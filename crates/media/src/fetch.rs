//! Giving media out: our own, and those of other servers, fetched once.

use std::time::Duration;

use chappe_store::{
    Json, Tx,
    media::{Media as Table, MediaAccess, MediaByHash, Medium},
};
use ruma::ServerName;
use tokio::fs::File;

use crate::{
    Error, Media, RemoteError,
    blobs::Received,
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

/// For how long those who waited are told that it failed, in milliseconds.
pub(crate) const UNFETCHED_MS: u64 = 60_000;

/// Why a medium could not be had.
#[derive(Clone, Copy)]
pub(crate) enum Unfetched {
    /// Its server did not give it, at this time: whoever waited for it meanwhile asks no more.
    At(u64),
    /// A medium does not become smaller: whoever comes later asks no more either.
    TooLarge,
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
        let content = self.open_content(medium).await?;
        self.saw(server, id);
        Ok(content)
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
        let medium = match self.at_hand(server, id).await? {
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
        if self.is_local(server) || !is_media_id(id) {
            return Ok(true);
        }
        match self.known(server, id).await? {
            Some(medium) => Ok(!self.is_lost(server, &medium).await?),
            None => Ok(false),
        }
    }

    /// Whether those who are not logged in may have a medium as far as its age goes: it came here before the freeze, or is
    /// not here and nothing is frozen. (client-server API, "Content repository")
    pub async fn is_from_before_freeze(&self, server: &ServerName, id: &str) -> Result<bool, Error> {
        let Some(frozen_since) = self.config().frozen_since else { return Ok(true) };
        if !is_media_id(id) {
            return Ok(false);
        }
        let Some(medium) = self.known(server, id).await? else { return Ok(false) };
        // It would be fetched again.
        Ok(medium.created < frozen_since && !self.is_lost(server, &medium).await?)
    }

    pub(crate) async fn known(&self, server: &ServerName, id: &str) -> Result<Option<Medium>, Error> {
        let found = self.0.store.read().get::<Table>(&(server.to_owned(), id.to_owned())).await?;
        Ok(found.map(|Json(medium)| medium))
    }

    /// The same, without a copy whose file is gone: its server has it still. What is known of it stays until it is here again:
    /// the file may come back.
    async fn at_hand(&self, server: &ServerName, id: &str) -> Result<Option<Medium>, Error> {
        let Some(medium) = self.known(server, id).await? else { return Ok(None) };
        if !self.is_lost(server, &medium).await? {
            return Ok(Some(medium));
        }
        tracing::warn!(%server, id, "the file of a medium of another server is gone");
        Ok(None)
    }

    /// Whether the file of another server's medium is gone. What is under quarantine is given to nobody, and stays.
    async fn is_lost(&self, server: &ServerName, medium: &Medium) -> Result<bool, Error> {
        match &medium.blob {
            Some(blob) if !self.is_local(server) && medium.quarantined_by.is_none() => {
                Ok(!self.0.blobs.is_there(blob).await?)
            }
            _ => Ok(false),
        }
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

    /// Fetches from the medium's server, once for all who ask at the time: where it fails, for all of them.
    async fn fetched(&self, server: &ServerName, id: &str, wait: Duration) -> Result<Medium, Error> {
        let (world, what) = (&self.0.world, format!("{server}/{id}"));
        let (asked, until) = (world.now(), world.instant() + wait);
        let _turn = self.turn(&what).await;
        let before = self.known(server, id).await?;
        if let Some(medium) = &before
            && !self.is_lost(server, medium).await?
        {
            return Ok(medium.clone());
        }
        match self.0.unfetched.get(&what, world.now()) {
            Some(Unfetched::TooLarge) => return Err(Error::RemoteTooLarge),
            Some(Unfetched::At(failed)) if failed > asked => {
                return Err(Error::RemoteFailed("it did not answer others who asked".to_owned()));
            }
            _ => {}
        }
        let (_of_server, place) = self.places_from(server).await?;
        let wait = until.saturating_duration_since(world.instant());
        let fetched = self.in_place(place, self.received_from(server, id, wait)).await;
        let failed = world.now();
        match &fetched {
            Err(Error::RemoteFailed(_)) => self.0.unfetched.put(what, Unfetched::At(failed), failed),
            Err(Error::RemoteTooLarge) => self.0.unfetched.put(what, Unfetched::TooLarge, failed),
            _ => {}
        }
        let (received, content_type, filename) = fetched?;
        let medium = Medium {
            blob: Some(received.blob.clone()),
            size: received.size,
            content_type: content_type.and_then(kept),
            filename: filename.and_then(kept),
            uploader: None,
            created: before.as_ref().map_or(world.now(), |before| before.created),
            expires: None,
            sha256: Some(received.sha256),
            quarantined_by: None,
            protected: before.as_ref().is_some_and(|before| before.protected),
        };
        match self.keep_fetched((server, id), received, before, medium.clone()).await {
            // Put under quarantine meanwhile.
            Err(Error::Store(chappe_store::Error::Conflict)) => {
                self.known(server, id).await?.ok_or(Error::NotFound)
            }
            done => done.map(|()| medium),
        }
    }

    /// What a server gives for a medium, with its content type and file name.
    async fn received_from(
        &self,
        server: &ServerName,
        id: &str,
        wait: Duration,
    ) -> Result<(Received, Option<String>, Option<String>), Error> {
        let limit = self.config().max_remote_bytes;
        let content = self.0.remote.download(server, id, limit, wait).await.map_err(|error| match error {
            RemoteError::NotFound => Error::NotFound,
            RemoteError::NotYetUploaded => Error::NotYetUploaded,
            RemoteError::Unavailable(why) => Error::RemoteFailed(why),
        })?;
        let blob = self.0.world.token(BLOB_LENGTH);
        let received =
            self.0.blobs.receive(blob, content.body, limit).await.map_err(|error| match error {
                Error::BrokeOff(why) => Error::RemoteFailed(why),
                Error::TooLarge => Error::RemoteTooLarge,
                other => other,
            })?;
        Ok((received, content.content_type, content.filename))
    }

    /// Keeps what was fetched, in place of a copy whose file is gone.
    async fn keep_fetched(
        &self,
        (server, id): (&ServerName, &str),
        received: Received,
        before: Option<Medium>,
        medium: Medium,
    ) -> Result<(), Error> {
        let (media, key) = (self.clone(), (server.to_owned(), id.to_owned()));
        let (size, sha256) = (received.size, received.sha256);
        let commit = async move {
            let (mut tx, mut gone) = (Tx::new(), Vec::new());
            if let Some(before) = before {
                gone = media.draft_gone(&mut tx, &key, before).await?;
                // It came long ago, but is not unused.
                tx.put::<MediaAccess>(&key, &media.0.world.now());
            } else {
                tx.expect_absent::<Table>(&key);
            }
            tx.put::<MediaByHash>(&(sha256, key.0.clone(), key.1.clone()), &());
            tx.put::<Table>(&key, &Json(medium));
            media.forget(tx, &gone).await?;
            media.remote_grew(size);
            Ok(())
        };
        self.keep(received, commit).await
    }
}

/// Media ids are opaque, but only these characters are legal (client-server API, "Matrix Content (`mxc://`) URIs").
pub(crate) fn is_media_id(id: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !id.is_empty() && id.len() <= 255 && id.bytes().all(legal)
}
