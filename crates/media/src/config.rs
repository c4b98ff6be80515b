//! Configuration of media.

use serde::Deserialize;

/// The section `[media]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of an upload.
    pub max_upload_bytes: u64,
    /// Bytes of a medium of another server.
    pub max_remote_bytes: u64,
    /// Pixels of a picture that thumbnails are made of.
    pub max_pixels: u64,
    /// Thumbnails made at the same time; one may take up to 256 MiB of memory, and the file besides.
    pub thumbnails_at_once: usize,
    /// Hours in which an address made ahead must be used.
    pub pending_hours: u64,
    /// Addresses made ahead and not used, per user.
    pub pending_per_user: usize,
    /// Bytes all uploads of one user may have together; 0: no limit.
    pub max_bytes_per_user: u64,
    /// Whether media are also given to those who are not logged in, as old clients ask for them.
    pub serve_without_login: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_upload_bytes: 100 << 20,
            max_remote_bytes: 100 << 20,
            max_pixels: 50_000_000,
            thumbnails_at_once: 2,
            pending_hours: 24,
            pending_per_user: 50,
            max_bytes_per_user: 0,
            serve_without_login: false,
        }
    }
}
