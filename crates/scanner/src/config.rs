//! Configuration of the content scanner.

use std::path::PathBuf;

use chappe_world::Socket;
use serde::Deserialize;

/// The section `[scanner]`. Without `clamd` and `command` there is no scanner.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where ClamAV's daemon listens: the path of its socket, or `host:port`.
    pub clamd: Option<Socket>,
    /// A command instead, with its arguments; the path of the file follows. Code 0: clean, any other: not.
    pub command: Vec<PathBuf>,
    /// Codes of the command that say something about this moment and not about the file: its verdict is not kept.
    pub passing_exit_codes: Vec<i32>,
    /// Bytes of a file that is scanned; larger ones are refused.
    pub max_bytes: u64,
    /// Seconds for one file, waiting for a place aside.
    pub timeout_seconds: u64,
    /// Files scanned at the same time.
    pub at_once: usize,
    /// Kinds of files that are let through, told by what is in them; empty: all that are not blocked.
    pub allowed_mimetypes: Vec<String>,
    /// Kinds of files that are not let through. Goes without `allowed_mimetypes`.
    pub blocked_mimetypes: Vec<String>,
    /// Verdicts kept in memory, by medium and key.
    pub verdicts: usize,
    /// Minutes for which they are kept.
    pub verdict_minutes: u64,
    /// Whether media are scanned as well when they are asked for beside the scanner's endpoints.
    pub enforce: bool,
    /// Days for which verdicts of such media are kept on disk.
    pub enforced_days: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clamd: None,
            command: Vec::new(),
            passing_exit_codes: Vec::new(),
            max_bytes: 100 << 20,
            timeout_seconds: 60,
            at_once: 4,
            allowed_mimetypes: Vec::new(),
            blocked_mimetypes: Vec::new(),
            verdicts: 10_000,
            verdict_minutes: 24 * 60,
            enforce: false,
            enforced_days: 7,
        }
    }
}
