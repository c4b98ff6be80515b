//! Durable sends: each answered only when the event is on disk.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;

use super::{Setting, join_all, register_many};
use crate::{
    report::Row,
    stats::{Samples, per_second},
};
use chappe_bench::{Client, Server};

const SPAN: Duration = Duration::from_secs(10);

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "s", 128).await?;
    let rooms = try_join_all(users.iter().map(|user| user.create_room("private_chat"))).await?;
    let mut rows = Vec::new();
    for senders in [1, 16, 128] {
        let pairs: Vec<(&Client, &str)> = users.iter().zip(rooms.iter().map(|room| &**room)).collect();
        let (rate, measured) = load(&server, &pairs[..senders]).await?;
        let what = format!("durable sends, {senders} at a time in rooms of their own");
        let row = Row::new(what, measured);
        rows.push(if senders == 128 { row.aim("3,000/s", rate >= 3000.0) } else { row });
    }
    let room = users[0].create_room("public_chat").await?;
    join_all(&users[1..], &room).await?;
    let pairs: Vec<(&Client, &str)> = users.iter().map(|user| (user, &*room)).collect();
    let (rate, measured) = load(&server, &pairs).await?;
    let row = Row::new("durable sends, 128 at a time in one room", measured);
    rows.push(row.aim("3,000/s", rate >= 3000.0));
    Ok(rows)
}

/// Every pair sends one message after the other, for a while: the rate, and all in words.
async fn load(server: &Server, pairs: &[(&Client, &str)]) -> Result<(f64, String)> {
    let (begin, cpu) = (Instant::now(), server.cpu()?);
    let loops = pairs.iter().map(|(user, room)| send_until(user, room, begin + SPAN));
    let mut samples = Samples::default();
    for one in try_join_all(loops).await? {
        samples.extend(one);
    }
    let rate = per_second(samples.len(), begin.elapsed());
    let cores = server.cpu_since(cpu)?.as_secs_f64() / begin.elapsed().as_secs_f64();
    Ok((rate, format!("{rate:.0}/s, {samples}; server {cores:.2} cores")))
}

async fn send_until(user: &Client, room: &str, until: Instant) -> Result<Samples> {
    let mut samples = Samples::default();
    while Instant::now() < until {
        let begin = Instant::now();
        user.send(room, "Paris to Lille in nine minutes").await?;
        samples.add(begin.elapsed());
    }
    Ok(samples)
}
