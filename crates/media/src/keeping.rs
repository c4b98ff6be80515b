//! Files and the rows that name them: both or neither, though they lie in two places.

use std::collections::HashSet;

use chappe_store::{
    Direction, Json,
    media::{Thumbnail, Thumbnails},
};

use crate::{Error, Media, blobs::Received, thumbnail::Key};

/// Rows looked at in one round trip.
const PAGE: usize = 500;

impl Media {
    /// Puts a file in its place, then commits what names it; if that fails, the file goes again. Done to the end, whether
    /// anybody waits for it or not.
    pub(crate) async fn keep(
        &self,
        received: Received,
        commit: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Error> {
        let (media, blob) = (self.clone(), received.blob.clone());
        let work = async move {
            let blobs = &media.0.blobs;
            let done = match blobs.place(received).await {
                Ok(()) => commit.await,
                Err(error) => Err(error),
            };
            match &done {
                Ok(()) => blobs.settle(&blob).await,
                Err(_) => blobs.remove(&blob).await,
            }
            done
        };
        self.0.world.spawn("medium", work).await.map_err(|_| Error::Stopping)?
    }

    /// Looks, while the server is at work, which blobs something names, of those whose keeping or deleting was interrupted;
    /// removes the others.
    pub(crate) fn settle_later(&self, marked: HashSet<String>) {
        if marked.is_empty() {
            return;
        }
        let media = self.clone();
        self.0.world.spawn("marked media", async move {
            if let Err(error) = media.settle_interrupted(marked).await {
                tracing::warn!(%error, "interrupted work on media is settled at the next start");
            }
        });
    }

    async fn settle_interrupted(&self, marked: HashSet<String>) -> Result<(), Error> {
        let named = parking_lot::Mutex::new(HashSet::new());
        let note = |blob: &String| {
            if marked.contains(blob) {
                named.lock().insert(blob.clone());
            }
        };
        self.all(|info| {
            info.medium.blob.iter().for_each(note);
            false
        })
        .await?;
        let mut from = None;
        loop {
            let (page, next) = self.some_thumbnails(from).await?;
            for (_, made) in &page {
                note(&made.blob);
            }
            from = next;
            if from.is_none() {
                break;
            }
        }
        let named = named.into_inner();
        tracing::info!(marked = marked.len(), named = named.len(), "interrupted work on media settled");
        for blob in marked {
            if named.contains(&blob) {
                self.0.blobs.settle(&blob).await;
            } else {
                self.0.blobs.remove(&blob).await;
            }
        }
        Ok(())
    }

    /// Some thumbnails in the order of their keys, and where the next ones begin; none: those were the last.
    pub(crate) async fn some_thumbnails(
        &self,
        from: Option<Key>,
    ) -> Result<(Vec<(Key, Thumbnail)>, Option<Key>), Error> {
        let reader = self.0.store.read();
        let rows = match &from {
            None => reader.scan::<Thumbnails>(&(), Direction::Forward, PAGE).await?,
            Some(from) => reader.scan_from::<Thumbnails>(&(), from, PAGE).await?,
        };
        let page: Vec<(Key, Thumbnail)> = rows.into_iter().map(|(key, Json(made))| (key, made)).collect();
        let last = page.last().filter(|_| page.len() == PAGE);
        let next = last.map(|((server, id, size), _)| (server.clone(), id.clone(), format!("{size}\0")));
        Ok((page, next))
    }
}
