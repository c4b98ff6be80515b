//! `jobs`: work that goes on in the background.

use chappe_store::jobs::{Job, Progress};
use serde_json::{Value, json};

use super::{Answer, Deps};
use crate::{Error, JobsVerb, jobs::Work};

pub(super) async fn run(deps: &Deps, verb: JobsVerb) -> Result<Answer, Error> {
    match verb {
        JobsVerb::List => {
            let mut jobs = deps.running()?.jobs.all().await?;
            jobs.sort_by_key(|(_, job, _)| job.created);
            let lines = jobs.iter().map(|(id, job, work)| line(id, job, work)).collect();
            Ok(Answer { lines, data: jobs.iter().map(|(id, job, _)| data(id, job)).collect() })
        }
    }
}

fn line(id: &str, job: &Job, work: &Work) -> String {
    let progress = match job.progress {
        Progress::Scheduled => "waits",
        Progress::Active => "goes on",
        Progress::Complete => "done",
        Progress::Failed => "given up",
    };
    let what = match work {
        Work::DeleteRoom(work) => {
            format!("delete {}, {} users out", work.room, work.outcome.kicked_users.len())
        }
        Work::PurgeHistory(work) => format!("purge history of {}, {} events", work.room, work.purged),
        Work::RedactUser(work) => format!("redact {}, {} events", work.user, work.redacted),
        Work::Announce(work) => format!("announce, {} told, {} not", work.told, work.failed),
    };
    let why = job.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{id} {progress:8} {what}{why}")
}

fn data(id: &str, job: &Job) -> Value {
    json!({
        "id": id, "progress": job.progress, "work": job.work, "by": job.by,
        "created": job.created, "ended": job.ended, "error": job.error,
    })
}
