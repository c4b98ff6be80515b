//! `reports`: what users have reported.

use chappe_store::reports::Report;
use serde_json::{Value, json};

use super::{Answer, Deps};
use crate::{Error, Reports};

pub(super) async fn run(deps: &Deps, verb: Reports) -> Result<Answer, Error> {
    let rooms = &deps.running()?.rooms;
    match verb {
        Reports::List { limit } => {
            let mut found = rooms.all_reports().await?;
            found.reverse();
            found.truncate(limit);
            let lines = found.iter().map(|(id, report)| line(*id, report)).collect();
            Ok(Answer { lines, data: found.iter().map(|(id, report)| data(*id, report)).collect() })
        }
        Reports::Show { id } => {
            let report = rooms.report_at(id).await?.ok_or_else(|| unknown(id))?;
            let event = rooms.reported_event(&report).await?;
            let mut lines = vec![line(id, &report)];
            lines.extend(event.as_ref().map(|event| event.get().to_owned()));
            let mut data = data(id, &report);
            data["event_json"] = json!(event);
            Ok(Answer { lines, data })
        }
        Reports::Dismiss { id } => {
            rooms.report_at(id).await?.ok_or_else(|| unknown(id))?;
            rooms.delete_report(id).await?;
            Ok(Answer::line(format!("report {id} deleted"), json!({ "id": id })))
        }
    }
}

fn unknown(id: u64) -> Error {
    Error::NotFound(format!("report {id}"))
}

fn line(id: u64, report: &Report) -> String {
    let about = match (&report.event, &report.room, &report.user) {
        (Some(event), Some(room), _) => format!("event {event} in {room}"),
        (_, Some(room), _) => format!("room {room}"),
        (_, _, Some(user)) => format!("user {user}"),
        _ => "nothing".to_owned(),
    };
    format!("{id:>8} {} reports {about}: {}", report.reporter, report.reason)
}

fn data(id: u64, report: &Report) -> Value {
    json!({
        "id": id, "reporter": report.reporter, "room_id": report.room, "event_id": report.event,
        "user_id": report.user, "reason": report.reason, "at": report.at,
    })
}
