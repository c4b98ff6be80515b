//! Resident memory per client that waits in a long-poll.

use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Setting, join_all, register_many, until_waiting};
use crate::report::Row;
use chappe_bench::{Client, Server};

/// Members of each room: every client is in one.
const ROOM: usize = 20;

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "w", setting.scaled(10_000)).await?;
    for members in users.chunks(ROOM) {
        let room = members[0].create_room("public_chat").await?;
        join_all(&members[1..], &room).await?;
    }
    // Everything that a client costs counts: its connection, its first sync, what is kept of it, its long-poll.
    let before = server.resident_bytes()?;
    let cpu = server.cpu()?;
    let start = async |user: &Client| {
        // A pool of its own for each, as real clients have a connection of their own.
        let user = user.at(&Client::new(server.client));
        let (_, mut since) = user.sync_bytes(None, 0).await?;
        tokio::spawn(async move {
            while let Ok((_, next)) = user.sync_bytes(Some(&since), 300_000).await {
                since = next;
            }
        });
        anyhow::Ok(())
    };
    stream::iter(&users).map(start).buffer_unordered(16).try_collect::<()>().await?;
    until_waiting(&server, users.len()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (after, cpu) = (server.resident_bytes()?, server.cpu_since(cpu)?);
    let each = after.saturating_sub(before) / users.len() as u64;
    let idle = server.cpu()?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = server.cpu_since(idle)?.as_secs_f64() / 10.0;
    let row = Row::new(
        format!("resident memory for a waiting client, of {}", users.len()),
        format!("{each} bytes ({} MiB → {} MiB)", before >> 20, after >> 20),
    );
    let begun = cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(users.len())?);
    Ok(vec![
        row.aim("15 kB", each < 15_000),
        Row::new("processor time of a first sync and of beginning to wait", format!("{begun:.0} µs")),
        Row::new("the server while all wait", format!("{idle:.3} cores")),
    ])
}
