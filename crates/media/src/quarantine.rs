//! Quarantine: bytes that are given to nobody any more, under whatever address and from whatever server they come.

use chappe_store::{
    Direction, Json, Tx,
    media::{Media as Table, MediaByHash, Medium, Quarantine, Quarantines},
};
use ruma::{ServerName, UserId};

use crate::{Error, Media};

/// How often a change that met another one is made again.
const ATTEMPTS: usize = 5;

impl Media {
    /// Puts a medium under quarantine, and with it all that has the same bytes, now and later. One of another server that
    /// is not here is not fetched any more. Says whether it was done: a protected one stays.
    pub async fn quarantine(&self, server: &ServerName, id: &str, by: &UserId) -> Result<bool, Error> {
        again(|| self.try_quarantine(server, id, by)).await
    }

    async fn try_quarantine(&self, server: &ServerName, id: &str, by: &UserId) -> Result<bool, Error> {
        let now = self.0.world.now();
        let Some(medium) = self.known(server, id).await? else {
            if self.is_local(server) {
                return Err(Error::NotFound);
            }
            let absent = Medium { quarantined_by: Some(by.to_owned()), created: now, ..nothing() };
            let key = (server.to_owned(), id.to_owned());
            let mut tx = Tx::new();
            tx.expect_absent::<Table>(&key).put::<Table>(&key, &Json(absent));
            self.0.store.commit(tx).await?;
            return Ok(true);
        };
        if medium.protected {
            return Ok(false);
        }
        let mut tx = Tx::new();
        if let Some(hash) = self.hash_of(server, id, &medium).await? {
            tx.put::<Quarantines>(&hash, &Json(Quarantine { by: by.to_owned(), at: now }));
            self.mark(&mut tx, &hash, Some(by)).await?;
        } else {
            let key = (server.to_owned(), id.to_owned());
            tx.expect::<Table>(&key, Some(&Json(medium.clone())));
            tx.put::<Table>(&key, &Json(Medium { quarantined_by: Some(by.to_owned()), ..medium }));
        }
        self.0.store.commit(tx).await?;
        Ok(true)
    }

    /// Lifts the quarantine of a medium and of all that has the same bytes. [`Error::NotFound`].
    pub async fn unquarantine(&self, server: &ServerName, id: &str) -> Result<(), Error> {
        again(|| self.try_unquarantine(server, id)).await
    }

    async fn try_unquarantine(&self, server: &ServerName, id: &str) -> Result<(), Error> {
        let medium = self.known(server, id).await?.ok_or(Error::NotFound)?;
        let key = (server.to_owned(), id.to_owned());
        let mut tx = Tx::new();
        match self.hash_of(server, id, &medium).await? {
            Some(hash) => {
                tx.delete::<Quarantines>(&hash);
                self.mark(&mut tx, &hash, None).await?;
            }
            None if medium.quarantined_by.is_some() && medium.uploader.is_none() => {
                tx.expect::<Table>(&key, Some(&Json(medium))).delete::<Table>(&key);
            }
            None => {
                tx.expect::<Table>(&key, Some(&Json(medium.clone())));
                tx.put::<Table>(&key, &Json(Medium { quarantined_by: None, ..medium }));
            }
        }
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// Has a medium of this server never put under quarantine, or takes that back. [`Error::NotFound`].
    pub async fn protect(&self, id: &str, protected: bool) -> Result<(), Error> {
        let key = (self.0.server_name.clone(), id.to_owned());
        let medium = self.known(&key.0, id).await?.ok_or(Error::NotFound)?;
        let mut tx = Tx::new();
        tx.expect::<Table>(&key, Some(&Json(medium.clone())));
        tx.put::<Table>(&key, &Json(Medium { protected, ..medium }));
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// Refuses what is under quarantine as if it were not there.
    pub(crate) async fn check_quarantine(
        &self,
        server: &ServerName,
        id: &str,
        medium: &Medium,
    ) -> Result<(), Error> {
        if medium.protected {
            return Ok(());
        }
        if medium.quarantined_by.is_some() {
            return Err(Error::NotFound);
        }
        let Some(hash) = self.hash_of(server, id, medium).await? else { return Ok(()) };
        match self.0.store.read().get::<Quarantines>(&hash).await? {
            Some(_) => Err(Error::NotFound),
            None => Ok(()),
        }
    }

    /// The hash of a medium's bytes, worked out and kept where that was not done when it came. None without bytes.
    pub(crate) async fn hash_of(
        &self,
        server: &ServerName,
        id: &str,
        medium: &Medium,
    ) -> Result<Option<[u8; 32]>, Error> {
        let Some(blob) = medium.blob.as_deref() else { return Ok(None) };
        if medium.sha256.is_some() {
            return Ok(medium.sha256);
        }
        let hash = self.0.blobs.sha256(blob).await?;
        let key = (server.to_owned(), id.to_owned());
        let mut tx = Tx::new();
        tx.expect::<Table>(&key, Some(&Json(medium.clone())));
        tx.put::<Table>(&key, &Json(Medium { sha256: Some(hash), ..medium.clone() }));
        tx.put::<MediaByHash>(&(hash, key.0, key.1), &());
        match self.0.store.commit(tx).await {
            // Somebody else has kept it or changed the medium otherwise: the bytes are the same.
            Ok(_) | Err(chappe_store::Error::Conflict) => Ok(Some(hash)),
            Err(error) => Err(error.into()),
        }
    }

    /// Says in the records of all media with these bytes who has put them under quarantine.
    async fn mark(&self, tx: &mut Tx, hash: &[u8; 32], by: Option<&UserId>) -> Result<(), Error> {
        let reader = self.0.store.read();
        let same = reader.scan::<MediaByHash>(hash, Direction::Forward, usize::MAX).await?;
        let keys: Vec<_> = same.into_iter().map(|((_, server, id), ())| (server, id)).collect();
        for (key, medium) in keys.iter().zip(reader.get_many::<Table>(&keys).await?) {
            let Some(Json(medium)) = medium.filter(|Json(medium)| !medium.protected) else { continue };
            tx.expect::<Table>(key, Some(&Json(medium.clone())));
            tx.put::<Table>(key, &Json(Medium { quarantined_by: by.map(ToOwned::to_owned), ..medium }));
        }
        Ok(())
    }
}

/// Does a change again if a record was changed while it was made.
pub(crate) async fn again<T, F>(change: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for _ in 0..ATTEMPTS {
        match change().await {
            Err(Error::Store(chappe_store::Error::Conflict)) => {}
            done => return done,
        }
    }
    change().await
}

fn nothing() -> Medium {
    Medium {
        blob: None,
        size: 0,
        content_type: None,
        filename: None,
        uploader: None,
        created: 0,
        expires: None,
        sha256: None,
        quarantined_by: None,
        protected: false,
    }
}
