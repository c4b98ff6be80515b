//! The scenarios, one file each; every one starts its own server.

mod bigjoin;
mod delivery;
mod directory;
mod disk;
mod fanout;
mod federation;
mod idle;
mod initial;
mod memory;
mod mixed;
mod receive;
mod resolution;
mod sends;
mod sliding;

use std::{
    path::PathBuf,
    pin::Pin,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;

use crate::report::Row;
use chappe_bench::{Client, Server};

/// What a scenario gets to know.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) binary: PathBuf,
    pub(crate) scale: f64,
}

impl Setting {
    /// `size` times the scale, at least 2.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "sizes are small positive numbers"
    )]
    pub(crate) fn scaled(&self, size: usize) -> usize {
        ((size as f64 * self.scale) as usize).max(2)
    }
}

type Running = Pin<Box<dyn Future<Output = Result<Vec<Row>>>>>;
type Scenario = fn(Setting) -> Running;

/// Name and function, in the order of the report.
pub(crate) const ALL: &[(&str, Scenario)] = &[
    ("sends", |setting| Box::pin(sends::run(setting))),
    ("delivery", |setting| Box::pin(delivery::run(setting))),
    ("idle", |setting| Box::pin(idle::run(setting))),
    ("initial", |setting| Box::pin(initial::run(setting))),
    ("sliding", |setting| Box::pin(sliding::run(setting))),
    ("directory", |setting| Box::pin(directory::run(setting))),
    ("disk", |setting| Box::pin(disk::run(setting))),
    ("federation", |setting| Box::pin(federation::run(setting))),
    ("bigjoin", |setting| Box::pin(bigjoin::run(setting))),
    ("receive", |setting| Box::pin(receive::run(setting))),
    ("fanout", |setting| Box::pin(fanout::run(setting))),
    ("resolution", |setting| Box::pin(resolution::run(setting))),
    ("memory", |setting| Box::pin(memory::run(setting))),
    ("mixed", |setting| Box::pin(mixed::run(setting))),
];

/// Registers `count` users, 16 at a time.
async fn register_many(base: &Client, prefix: &str, count: usize) -> Result<Vec<Client>> {
    let names = (0..count).map(|n| format!("{prefix}{n}"));
    stream::iter(names).map(|name| async move { base.register(&name).await }).buffered(16).try_collect().await
}

/// Lets every user join a room, 16 at a time.
async fn join_all(users: &[Client], room: &str) -> Result<()> {
    stream::iter(users).map(|user| user.join(room)).buffer_unordered(16).try_collect().await
}

/// The token a sync answer ends at.
fn next_batch(answer: &serde_json::Value) -> Result<String> {
    use anyhow::Context as _;
    Ok(answer["next_batch"].as_str().context("no next_batch")?.to_owned())
}

/// Waits until so many syncs are under way, as the server counts them.
async fn until_waiting(server: &Server, count: usize) -> Result<()> {
    let client = Client::new(server.client);
    let deadline = Instant::now() + Duration::from_mins(1);
    while waiting_syncs(&client).await? < count {
        anyhow::ensure!(Instant::now() < deadline, "{count} waiting syncs were expected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How many syncs are under way.
async fn waiting_syncs(client: &Client) -> Result<usize> {
    let page = client.bytes(Method::GET, "/metrics", None).await?;
    let page = String::from_utf8_lossy(&page);
    let line = page.lines().find(|line| {
        line.starts_with("chappe_http_requests_under_way") && line.contains("/_matrix/client/v3/sync\"")
    });
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0))
}
