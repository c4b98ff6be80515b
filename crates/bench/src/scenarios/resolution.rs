//! A room of 50,000 members in which another server branches off again and again: up to 100 heads with conflicting state.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::Setting;
use crate::{
    hosted::Hosted,
    report::Row,
    stats::{Samples, measured},
};
use chappe_bench::{Authority, Server};

/// Branches.
const HEADS: usize = 100;

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let authority = Authority::new()?;
    let members = setting.scaled(50_000);
    let hosted = Hosted::new(&authority, members).await?;
    let server = Server::start_federating(&setting.binary, &authority).await?;
    let (user, join) = hosted.joined_by(&server, "near").await?;
    let mut link = hosted.peer.link(&server.name).await?;
    let (mut samples, cpu) = (Samples::default(), server.cpu()?);
    let begin = Instant::now();
    for n in 0..HEADS {
        let (_, event) = hosted.peer.sign(branch(&hosted, &join, n))?;
        samples.add(measured(link.send(&format!("h{n}"), vec![event])).await?);
    }
    let (took, cpu) = (begin.elapsed(), server.cpu_since(cpu)?);
    let merge = measured(user.send(&hosted.seat.room, "all together")).await?;
    Ok(vec![
        Row::new(
            format!(
                "an event that branches off in a room of {members} members, {HEADS} of them, state in conflict"
            ),
            format!("{samples}; all {:.2} s, processor time {:.2} s", took.as_secs_f64(), cpu.as_secs_f64()),
        ),
        Row::new(
            format!("a message sent on top of {HEADS} heads"),
            format!("{:.1} ms; {} MiB resident", merge.as_secs_f64() * 1e3, server.resident_bytes()? >> 20),
        ),
    ])
}

/// A state event right after the join, as if nothing had happened since: topics, names and bans.
fn branch(hosted: &Hosted, join: &str, n: usize) -> Value {
    let banned = format!("@u{}:{}", n % 7 + 1, hosted.peer.name);
    let (kind, key, content) = match n % 3 {
        0 => ("m.room.topic", "", json!({ "topic": n.to_string() })),
        1 => ("m.room.name", "", json!({ "name": n.to_string() })),
        _ => ("m.room.member", banned.as_str(), json!({ "membership": "ban", "reason": n.to_string() })),
    };
    let mut event = hosted.seat.event(kind, Some(key), content);
    event["prev_events"] = json!([join]);
    event["depth"] = json!(hosted.seat.depth + 2);
    event
}
