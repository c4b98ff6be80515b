//! Resident memory per client that waits in a long-poll.

use std::time::Duration;

use anyhow::Result;

use super::{Setting, next_batch, register_many};
use chappe_bench::{Client, Server};

pub(super) async fn run(setting: Setting) -> Result<()> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "w", setting.scaled(10_000)).await?;
    let mut tokens = Vec::with_capacity(users.len());
    for user in &users {
        tokens.push(next_batch(&user.sync(None, 0).await?)?);
    }
    let before = server.resident_bytes()?;
    let cpu = server.cpu()?;
    for (user, since) in users.iter().cloned().zip(tokens) {
        // A pool of its own for each, as real clients have a connection of their own.
        let user = user.at(&Client::new(server.client));
        tokio::spawn(async move { user.sync(Some(&since), 120_000).await });
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let after = server.resident_bytes()?;
    let each = after.saturating_sub(before) / users.len() as u64;
    println!(
        "{} waiting clients: {each} bytes each ({} MiB → {} MiB)",
        users.len(),
        before >> 20,
        after >> 20
    );
    println!("processor time while they began to wait: {:.2} s", server.cpu_since(cpu)?.as_secs_f64());
    Ok(())
}
