//! What a membership change costs on disk in a room of 50,000.

use anyhow::Result;
use chappe_kv_rocksdb::{Options, Rocks};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tempfile::TempDir;

use super::{Setting, join_all, register_many};
use crate::report::Row;
use chappe_bench::{Client, Server, segment};

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "m", setting.scaled(50_000)).await?;
    let room = users[0].create_room("public_chat").await?;
    join_all(&users[1..], &room).await?;
    // The first start after so many sign-ups tidies; the second one has nothing left to tidy.
    let (server, _) = measured(server, &setting).await?;
    let (server, before) = measured(server, &setting).await?;

    // Leaving and joining again, by a tenth of the members.
    let path = format!("/_matrix/client/v3/rooms/{}/leave", segment(&room));
    let changing = &users[1..=users.len() / 10];
    let base = Client::new(server.client);
    let leave_and_join = async |user: &Client| {
        let user = user.at(&base);
        user.post(&path, json!({})).await?;
        user.join(&room).await
    };
    stream::iter(changing).map(leave_and_join).buffer_unordered(16).try_collect::<()>().await?;
    let changes = 2 * changing.len() as u64;
    let (_server, after) = measured(server, &setting).await?;
    let (mut all, mut families) = (0, Vec::new());
    for ((family, before), (_, after)) in before.into_iter().zip(after) {
        let bytes = after.saturating_sub(before) / changes;
        all += bytes;
        families.push(format!("{family} {bytes} ({} → {} kB)", before / 1000, after / 1000));
    }
    let what = format!("disk for a membership change in a room of {}, the event included", users.len());
    let row = Row::new(what, format!("{all} bytes ({})", families.join(", ")));
    Ok(vec![row.aim("150 bytes", all < 150)])
}

/// Stops the server, measures its compacted tables, and starts it again on the same folder.
async fn measured(server: Server, setting: &Setting) -> Result<(Server, Vec<(&'static str, u64)>)> {
    let folder: TempDir = server.stop().await?;
    let database = folder.path().join("data/database");
    let sizes = tokio::task::spawn_blocking(move || {
        Rocks::open(&database, &Options::default(), chappe_store::registry::class)?.compacted_bytes()
    })
    .await??;
    Ok((Server::start_in(&setting.binary, folder).await?, sizes))
}
