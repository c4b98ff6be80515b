//! `config`: the configuration of the running server.

use async_trait::async_trait;
use serde_json::json;

use super::{Answer, Deps};
use crate::{Configuration, Error};

/// Reads the configuration again.
#[async_trait]
pub trait Reload: Send + Sync {
    /// Goes on with what it says now, all of it or nothing; the sentence says why not.
    async fn reload(&self) -> Result<Changes, String>;
}

/// What was changed in the configuration: keys, such as `client.rates.message.burst`. Never their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that hold from now on.
    pub applied: Vec<String>,
    /// Those that hold from the next start on.
    pub waiting: Vec<String>,
}

pub(super) async fn run(deps: &Deps, verb: Configuration) -> Result<Answer, Error> {
    match verb {
        Configuration::Reload => {
            let reloaded = deps.running()?.configuration.reload().await;
            reloaded.map(|changes| answer(&changes)).map_err(Error::Invalid)
        }
    }
}

fn answer(changes: &Changes) -> Answer {
    let data = json!({ "applied": changes.applied, "next_start": changes.waiting });
    let line = |what: &str, keys: &[String]| format!("{what}  {}", keys.join(", "));
    let mut lines = Vec::new();
    if !changes.applied.is_empty() {
        lines.push(line("applied now      ", &changes.applied));
    }
    if !changes.waiting.is_empty() {
        lines.push(line("at the next start", &changes.waiting));
    }
    if lines.is_empty() {
        lines.push("nothing has changed but, perhaps, the files that are named".to_owned());
    }
    Answer { lines, data }
}
