//! What a configuration was read from, kept so that it can be read again.

use std::{fmt, path::PathBuf};

use super::{Config, Error, load, parse};

/// A file or a text, the variables above it, and what all of them say together.
#[derive(Clone, Default)]
pub struct Written {
    pub(super) file: Option<PathBuf>,
    /// What errors call it.
    pub(super) name: String,
    pub(super) text: String,
    /// Variables of the process, which nobody changes while it runs.
    pub(super) env: Vec<(String, String)>,
    pub(super) table: toml::Table,
}

impl Written {
    /// Reads the file as it is now, and checks it as at a start.
    pub(crate) fn read_again(&self) -> Result<Config, Error> {
        let env = self.env.iter().cloned();
        match &self.file {
            Some(file) => load(Some(file), env),
            None => parse(&self.name, &self.text, env),
        }
    }
}

/// There are secrets in it.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}
