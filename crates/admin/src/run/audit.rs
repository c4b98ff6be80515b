//! `audit`: what administrators did.

use chappe_accounts::{Audit, Verdict};
use chappe_identity::moment;
use chappe_store::audit::{AuditEntry, Audited};
use serde_json::json;

use super::{Answer, Deps};
use crate::{AuditVerb, Error};

pub(super) async fn run(deps: &Deps, verb: AuditVerb) -> Result<Answer, Error> {
    let audit = deps.accounts.audit();
    match verb {
        AuditVerb::List { limit, before } => {
            let entries = audit.list(before.unwrap_or(u64::MAX), limit).await?;
            let data = entries.iter().map(|entry| json!(entry)).collect();
            Ok(Answer { lines: entries.iter().map(line).collect(), data })
        }
        AuditVerb::Verify { noted } => {
            let read = |text: String| {
                Audit::read_mark(&text)
                    .ok_or_else(|| Error::Invalid(format!("{text} is no mark: NUMBER:HASH")))
            };
            match audit.verify(noted.map(read).transpose()?).await? {
                Verdict::Whole(mark) => {
                    let written = Audit::written(&mark);
                    let lines =
                        vec![format!("{} entries, none changed or missing", mark.number), written.clone()];
                    Ok(Answer { lines, data: json!({ "entries": mark.number, "mark": written }) })
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
    format!("{number:6} {} ({at}) {by} {what}", moment(*at))
}
