//! What media need from other servers: a port that the federation fills.

use std::{pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use ruma::ServerName;

/// Bytes as they come; an error ends them.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// A medium as another server gives it.
pub struct RemoteContent {
    /// Its content type, as said.
    pub content_type: Option<String>,
    /// Its file name, as said.
    pub filename: Option<String>,
    /// Its bytes, not many more than were asked for: the reader counts too.
    pub body: Pieces,
}

/// Why another server gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// It does not have it.
    #[error("not found")]
    NotFound,
    /// Its address was made and nothing was uploaded yet.
    #[error("not uploaded yet")]
    NotYetUploaded,
    /// It was not reached, or answered nonsense.
    #[error("{0}")]
    Unavailable(String),
}

/// Media of other servers.
#[async_trait]
pub trait RemoteMedia: Send + Sync {
    /// Fetches one (`GET /_matrix/federation/v1/media/download/{mediaId}`), of `max_bytes` at most. `wait` is how long the other
    /// server may wait for an upload that was announced.
    async fn download(
        &self,
        server: &ServerName,
        media_id: &str,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<RemoteContent, RemoteError>;
}
