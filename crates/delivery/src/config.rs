//! The `[delivery]` section of the configuration.

use serde::{Deserialize, Serialize};

/// How devices are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longest time a sync may wait, in seconds.
    pub longest_wait_seconds: u64,
    /// Most events of one room's timeline in one answer.
    pub timeline_limit: usize,
    /// Most to-device messages in one answer.
    pub to_device_limit: usize,
    /// Whether presence is kept and told at all.
    pub presence: bool,
    /// A user counts as idle after so many seconds without activity.
    pub idle_seconds: u64,
    /// Unread events counted at most per room.
    pub unread_limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            longest_wait_seconds: 120,
            timeline_limit: 100,
            to_device_limit: 100,
            presence: true,
            idle_seconds: 300,
            unread_limit: 1_000,
        }
    }
}
