//! The section `[admin]` of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::StatisticsConfig;

/// `[admin]`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Secret of `/_synapse/admin/v1/register`; absent (as is `registration_shared_secret_file`): no such endpoint.
    pub registration_shared_secret: Option<String>,
    /// A file that holds it.
    pub registration_shared_secret_file: Option<PathBuf>,
    /// What is counted.
    pub statistics: StatisticsConfig,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("registration_shared_secret_file", &self.registration_shared_secret_file)
            .finish_non_exhaustive()
    }
}
