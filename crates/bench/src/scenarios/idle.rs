//! A user in 1,000 rooms asks again and nothing is new.

use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;

use super::{Setting, next_batch};
use crate::{
    report::Row,
    stats::{Samples, measured},
};
use chappe_bench::{Client, Server, sync_path};

const COUNT: u32 = 20_000;

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let user = Client::new(server.client).register("idle").await?;
    let rooms = setting.scaled(1000);
    let made: Vec<String> = stream::iter(0..rooms)
        .map(|_| user.create_room("private_chat"))
        .buffer_unordered(8)
        .try_collect()
        .await?;
    let since = next_batch(&user.sync(None, 0).await?)?;
    let (whoami, _) = repeated(&server, &user, "/_matrix/client/v3/account/whoami").await?;
    let (sync, samples) = repeated(&server, &user, &sync_path(Some(&since), 0)).await?;
    let decided = (sync.as_secs_f64() - whoami.as_secs_f64()) * 1e6;
    let micros = |each: Duration| each.as_secs_f64() * 1e6;
    let measured = format!(
        "{decided:.1} µs of the server's processor time ({:.1} µs with HTTP and log-in, as GET whoami takes {:.1} µs); {samples}",
        micros(sync),
        micros(whoami),
    );
    let row = Row::new(format!("idle incremental sync of a user in {} rooms", made.len()), measured);
    Ok(vec![row.aim("20 µs", decided < 20.0)])
}

/// Asks again and again: the server's processor time for one, and how long each took.
async fn repeated(server: &Server, user: &Client, path: &str) -> Result<(Duration, Samples)> {
    let cpu = server.cpu()?;
    let mut samples = Samples::default();
    for _ in 0..COUNT {
        samples.add(measured(user.bytes(Method::GET, path, None)).await?);
    }
    Ok((server.cpu_since(cpu)? / COUNT, samples))
}
