//! Work for administrators that goes on over restarts, and what became of it.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// How far a job has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// It waits for its turn.
    #[default]
    Scheduled,
    /// It is being done.
    Active,
    /// It is done.
    Complete,
    /// It was given up.
    Failed,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What is to be done and what has come of it, in the form of whoever does it.
    pub work: serde_json::Value,
    /// How far it has come.
    pub progress: Progress,
    /// Who asked for it; none for whoever is at the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<OwnedUserId>,
    /// When it was asked for, in milliseconds since 1970.
    pub created: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

table! {
    /// Id → job.
    Jobs = JOBS: String => Json<Job>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Value;

    #[test]
    fn golden_bytes() {
        let job = Job {
            work: json!({ "kind": "x" }),
            progress: Progress::Failed,
            by: Some(ruma::owned_user_id!("@a:x.fr")),
            created: 1,
            ended: Some(2),
            error: Some("no".to_owned()),
        };
        let text =
            r#"{"work":{"kind":"x"},"progress":"failed","by":"@a:x.fr","created":1,"ended":2,"error":"no"}"#;
        assert_eq!(String::from_utf8(Json(job).to_bytes()).unwrap(), text);
    }
}
