//! Sliding sync of an account in 3,000 rooms: the first window, growing it, one message, doing nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::{Setting, register_many};
use crate::{report::Row, stats::Samples};
use chappe_bench::{Client, Server};

const PATH: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
/// How often each step is measured.
const TIMES: usize = 50;

/// What a mobile client asks for its room list.
fn body(last: usize, connection: &str) -> Value {
    json!({
        "conn_id": connection,
        "lists": { "all_rooms": {
            "ranges": [[0, last]],
            "timeline_limit": 1,
            "required_state": [
                ["m.room.name", ""], ["m.room.encryption", ""], ["m.room.create", ""], ["m.room.join_rules", ""],
                ["m.room.member", "$LAZY"], ["m.room.member", "$ME"], ["m.room.topic", ""], ["m.space.child", "*"],
            ],
            "filters": { "not_room_types": ["m.space"] },
        } },
        "extensions": {
            "to_device": { "enabled": true }, "e2ee": { "enabled": true }, "account_data": { "enabled": true },
            "receipts": { "enabled": true }, "typing": { "enabled": true },
        },
    })
}

async fn ask(user: &Client, pos: Option<&str>, body: Value) -> Result<(Value, String, Duration)> {
    let path =
        pos.map_or_else(|| PATH.to_owned(), |pos| format!("{PATH}?pos={}", chappe_bench::segment(pos)));
    let begin = Instant::now();
    let answer = user.post(&path, body).await?;
    let pos = answer["pos"].as_str().context("no pos")?.to_owned();
    Ok((answer, pos, begin.elapsed()))
}

fn count(answer: &Value) -> usize {
    answer["rooms"].as_object().map_or(0, serde_json::Map::len)
}

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "w", 2).await?;
    let (user, other) = (&users[0], &users[1]);
    let rooms: Vec<String> = stream::iter(0..setting.scaled(3_000))
        .map(|_| async {
            let room = other.create_room("public_chat").await?;
            user.join(&room).await?;
            Ok::<_, anyhow::Error>(room)
        })
        .buffer_unordered(16)
        .try_collect()
        .await?;
    let (mut rows, mut first, mut grown, mut news, mut idle) =
        (Vec::new(), Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let (_, _, cold) = ask(user, None, body(19, "cold")).await?;
    let mut told = 0;
    for turn in 0..TIMES {
        let connection = format!("c{}", turn % 4);
        let (answer, pos, took) = ask(user, None, body(19, &connection)).await?;
        told = count(&answer);
        first.add(took);
        let (_, pos, took) = ask(user, Some(&pos), body(99, &connection)).await?;
        grown.add(took);
        other.send(&rooms[turn % rooms.len()], "hello").await?;
        let (answer, pos, took) = ask(user, Some(&pos), body(99, &connection)).await?;
        anyhow::ensure!(count(&answer) == 1, "one room has news, {} were told", count(&answer));
        news.add(took);
        let (answer, _, took) = ask(user, Some(&pos), body(99, &connection)).await?;
        anyhow::ensure!(count(&answer) == 0, "nothing is new");
        idle.add(took);
    }
    let many = rooms.len();
    rows.push(Row::new(
        format!("sliding sync, account in {many} rooms, first window ever"),
        format!("{cold:.1?}"),
    ));
    rows.push(Row::new(format!("the same, a new connection's window of {told}"), first.to_string()));
    rows.push(Row::new("the same, growing it to 100", grown.to_string()));
    rows.push(Row::new("the same, one message", news.to_string()));
    rows.push(Row::new("the same, nothing new", idle.to_string()));
    Ok(rows)
}
