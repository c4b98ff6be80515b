//! A user in 1,000 rooms asks again and nothing is new.

use std::time::Instant;

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Setting, next_batch};
use crate::stats::Samples;
use chappe_bench::{Client, Server};

pub(super) async fn run(setting: Setting) -> Result<()> {
    let server = Server::start(&setting.binary).await?;
    let user = Client::new(server.client).register("idle").await?;
    let rooms = setting.scaled(1000);
    let made: Vec<String> = stream::iter(0..rooms)
        .map(|_| user.create_room("private_chat"))
        .buffer_unordered(8)
        .try_collect()
        .await?;
    let since = next_batch(&user.sync(None, 0).await?)?;
    let mut samples = Samples::default();
    let cpu = server.cpu()?;
    let count = 20_000_u32;
    for _ in 0..count {
        let begin = Instant::now();
        user.sync(Some(&since), 0).await?;
        samples.add(begin.elapsed());
    }
    let each = server.cpu_since(cpu)? / count;
    println!("idle incremental sync of a user in {} rooms: {samples}", made.len());
    println!("server processor time per idle sync, HTTP included: {} µs", each.as_nanos() / 1000);
    let cpu = server.cpu()?;
    for _ in 0..count {
        user.get("/_matrix/client/versions").await?;
    }
    let http = server.cpu_since(cpu)? / count;
    println!("server processor time per GET /versions, for comparison: {} µs", http.as_nanos() / 1000);
    Ok(())
}
