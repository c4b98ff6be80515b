//! Configuration of media.

use ipnet::IpNet;
use serde::Deserialize;

/// The section `[media]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of an upload.
    pub max_upload_bytes: u64,
    /// Bytes of a medium of another server.
    pub max_remote_bytes: u64,
    /// Media of other servers that are fetched at the same time, and twice as many of those that take longer than ten seconds.
    pub remote_at_once: usize,
    /// The same, from one server.
    pub remote_at_once_per_server: usize,
    /// The same, for one user, together with media that have to be scanned before they are given out.
    pub remote_at_once_per_user: usize,
    /// Days after which an upload that nobody asked for is removed, but for pictures of users and rooms; 0: never.
    pub own_unused_days: u64,
    /// Days after which a medium of another server that nobody asked for is removed here; 0: never.
    pub remote_unused_days: u64,
    /// Bytes that media of other servers may take together; those unused for longest go first. 0: no limit.
    pub remote_space_bytes: u64,
    /// Pixels of a picture that thumbnails are made of.
    pub max_pixels: u64,
    /// Thumbnails made at the same time; one may take up to 256 MiB of memory, and the file besides.
    pub thumbnails_at_once: usize,
    /// The same, for one user, or one address without log-in, or one other server.
    pub thumbnails_at_once_per_user: usize,
    /// Uploads of one user at the same time.
    pub uploads_at_once_per_user: usize,
    /// Seconds in which an upload must have arrived.
    pub upload_seconds: u64,
    /// Hours in which an address made ahead must be used.
    pub pending_hours: u64,
    /// Addresses made ahead and not used, per user.
    pub pending_per_user: usize,
    /// Bytes all uploads of one user may have together; 0: no limit.
    pub max_bytes_per_user: u64,
    /// Whether media are also given to those who are not logged in, as old clients ask for them.
    pub serve_without_login: bool,
    /// Whether those who are not logged in can have media of other servers fetched, too.
    pub fetch_without_login: bool,
    /// Media that came here at this time or later are given after log-in alone, in milliseconds since the Unix epoch:
    /// the freeze of the specification (client-server API, "Content repository").
    pub frozen_since: Option<u64>,
    /// Previews of web pages.
    pub previews: Previews,
}

/// The section `[media.previews]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Previews {
    /// Whether pages are fetched at all.
    pub enabled: bool,
    /// Hosts that pages and their pictures may lie on, `*.` before a domain for all below it; empty: everywhere.
    pub allowed_hosts: Vec<String>,
    /// Hosts that they may not lie on, written alike.
    pub denied_hosts: Vec<String>,
    /// Ports that may be connected to; empty: any.
    pub ports: Vec<u16>,
    /// Address ranges inside the own network that may be connected to. Those of `[outbound]` do not count here: whoever
    /// is logged in would see what stands on pages inside.
    pub allowed_ranges: Vec<IpNet>,
    /// Languages that pages are asked for, the best first.
    pub languages: Vec<String>,
    /// Bytes of a page that are read.
    pub max_page_bytes: u64,
    /// Bytes of a picture.
    pub max_image_bytes: u64,
    /// Seconds for a page, its picture and all redirects together.
    pub timeout_seconds: u64,
    /// Redirects that are followed.
    pub redirects: u8,
    /// Pages fetched at the same time.
    pub at_once: usize,
    /// Minutes in which a page is not asked again.
    pub fresh_minutes: u64,
    /// Days after which a preview and its picture are removed.
    pub keep_days: u64,
    /// Bytes that previews and their pictures may take together; the oldest go first. 0: no limit.
    pub space_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_upload_bytes: 100 << 20,
            max_remote_bytes: 100 << 20,
            remote_at_once: 64,
            remote_at_once_per_server: 8,
            remote_at_once_per_user: 16,
            own_unused_days: 0,
            remote_unused_days: 180,
            remote_space_bytes: 0,
            max_pixels: 50_000_000,
            thumbnails_at_once: 2,
            thumbnails_at_once_per_user: 1,
            uploads_at_once_per_user: 8,
            upload_seconds: 3_600,
            pending_hours: 24,
            pending_per_user: 50,
            max_bytes_per_user: 0,
            serve_without_login: false,
            fetch_without_login: false,
            frozen_since: None,
            previews: Previews::default(),
        }
    }
}

impl Default for Previews {
    fn default() -> Self {
        Self {
            enabled: false,
            allowed_hosts: Vec::new(),
            denied_hosts: Vec::new(),
            ports: vec![80, 443],
            allowed_ranges: Vec::new(),
            languages: vec!["fr".to_owned(), "en".to_owned()],
            max_page_bytes: 1 << 20,
            max_image_bytes: 5 << 20,
            timeout_seconds: 10,
            redirects: 3,
            at_once: 16,
            fresh_minutes: 60,
            keep_days: 30,
            space_bytes: 1 << 30,
        }
    }
}
