//! Configuration of search.

use serde::Deserialize;

/// The section `[search]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether what is said in rooms without encryption can be searched. People can be found either way.
    pub messages: bool,
    /// Memory for what is not written to the index yet, in MiB; 15 at least.
    pub memory_mib: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { messages: true, memory_mib: 20 }
    }
}

impl Config {
    /// The writer's memory in bytes, within what the index allows.
    pub(crate) fn memory(&self) -> usize {
        self.memory_mib.clamp(15, 1_024) * 1_024 * 1_024
    }
}
