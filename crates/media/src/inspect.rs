//! Media are looked at before they are given out, where somebody is there to do it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chappe_store::media::Medium;
use ruma::ServerName;
use tokio::fs::File;

use crate::{Content, Error, Media, Reach, fetch::is_media_id};

/// Who looks at files.
#[async_trait]
pub trait Inspector: Send + Sync {
    /// Whether files are looked at, at this moment.
    fn is_on(&self) -> bool;
    /// Whether a file may be given out, known by the SHA-256 of its bytes; why that could not be found out.
    async fn is_clean(&self, sha256: &[u8; 32], file: &mut File, size: u64) -> Result<bool, String>;
    /// Whether that can be said of a file without looking at it.
    async fn is_known(&self, sha256: &[u8; 32]) -> Result<bool, String>;
}

impl Media {
    fn inspector(&self) -> Option<&Arc<dyn Inspector>> {
        self.0.inspector.as_ref().filter(|inspector| inspector.is_on())
    }

    /// A medium for somebody who looks at it by himself, as [`Media::content`] gives it otherwise, with the SHA-256 of its bytes.
    pub async fn for_inspection(
        &self,
        server: &ServerName,
        id: &str,
        reach: Reach,
        wait: Duration,
    ) -> Result<(Content, [u8; 32]), Error> {
        let medium = self.find(server, id, reach, wait).await?;
        let sha256 = self.hash_of(server, id, &medium).await?.ok_or(Error::NotFound)?;
        let content = self.open_content(medium).await?;
        self.saw(server, id);
        Ok((content, sha256))
    }

    /// Whether nobody has to look at a medium before it is given out or refused. At what has to be fetched first somebody
    /// has to.
    pub async fn is_inspected(&self, server: &ServerName, id: &str) -> Result<bool, Error> {
        let Some(inspector) = self.inspector() else { return Ok(true) };
        if !is_media_id(id) {
            return Ok(true);
        }
        match self.known(server, id).await? {
            None => Ok(self.is_local(server)),
            Some(Medium { sha256: Some(sha256), .. }) => {
                inspector.is_known(&sha256).await.map_err(Error::NotInspected)
            }
            Some(_) => Ok(false),
        }
    }

    /// Refuses what is not clean.
    pub(crate) async fn inspect(&self, server: &ServerName, id: &str, medium: &Medium) -> Result<(), Error> {
        let Some(inspector) = self.inspector() else { return Ok(()) };
        let sha256 = self.hash_of(server, id, medium).await?.ok_or(Error::NotFound)?;
        let _turn = self.turn(&format!("inspect {server}/{id}")).await;
        let mut file = self.0.blobs.read(medium.blob.as_deref().ok_or(Error::NotFound)?).await?;
        match inspector.is_clean(&sha256, &mut file, medium.size).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NotClean),
            Err(why) => Err(Error::NotInspected(why)),
        }
    }
}
