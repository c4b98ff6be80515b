//! `audit`: what administrators did.

use chappe_store::audit::{AuditEntry, Audited};
use serde_json::json;

use super::{Answer, Deps};
use crate::{
    AuditVerb, Error,
    audit::{Verdict, read_mark, shown},
};

pub(super) async fn run(deps: &Deps, verb: AuditVerb) -> Result<Answer, Error> {
    match verb {
        AuditVerb::List { limit, before } => {
            let entries = deps.audit().list(before.unwrap_or(u64::MAX), limit).await?;
            let data = entries.iter().map(|entry| json!(entry)).collect();
            Ok(Answer { lines: entries.iter().map(line).collect(), data })
        }
        AuditVerb::Verify { noted } => {
            let noted = noted.as_deref().map(read_mark).transpose()?;
            match deps.audit().verify(noted).await? {
                Verdict::Whole(mark) => {
                    let lines =
                        vec![format!("{} entries, none changed or missing", mark.number), shown(&mark)];
                    Ok(Answer { lines, data: json!({ "entries": mark.number, "mark": shown(&mark) }) })
                }
                Verdict::Broken(number) => {
                    Err(Error::Invalid(format!("entry {number} is not the one that was written")))
                }
            }
        }
    }
}

fn line(entry: &AuditEntry) -> String {
    let AuditEntry { number, at, by, what, .. } = entry;
    let what = match what {
        Audited::Asked { action, details } => format!("{action} {details}"),
        Audited::Answered { asked, error: None } => format!("{asked} done"),
        Audited::Answered { asked, error: Some(error) } => format!("{asked} not done: {error}"),
    };
    format!("{number:6} {at} {by} {what}")
}
