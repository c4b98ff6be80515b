//! A mixed day: 1,000 users in shared rooms of 5 to 200 members, two long-polling devices each, and 100
//! operations a second, open loop.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Setting, join_all, next_batch, register_many};
use crate::stats::Samples;
use chappe_bench::{Client, Server, segment};

const ROOM_SIZES: [usize; 6] = [5, 10, 20, 50, 100, 200];

pub(super) async fn run(setting: Setting) -> Result<()> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "x", setting.scaled(1000)).await?;
    let rooms = make_rooms(&users).await?;
    for user in &users {
        poll(user.clone()).await?;
        poll(user.another_device().await?).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;

    let seconds = 60;
    let (done, mut samples_of) = mpsc::unbounded_channel();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let (begin, cpu) = (Instant::now(), server.cpu()?);
    for n in 0..seconds * 100 {
        ticks.tick().await;
        let (room, members) = rooms[n * 7919 % rooms.len()].clone();
        let user = users[members[n * 104_729 % members.len()]].clone();
        let done = done.clone();
        tokio::spawn(async move {
            let begin = Instant::now();
            let answer = operation(n, &user, &room).await;
            let _ = done.send((begin.elapsed(), answer));
        });
    }
    drop(done);
    let cores = server.cpu_since(cpu)?.as_secs_f64() / begin.elapsed().as_secs_f64();
    let mut samples = Samples::default();
    while let Some((took, answer)) = samples_of.recv().await {
        answer?;
        samples.add(took);
    }
    println!("{} users, {} rooms, 100 operations/s for {seconds} s: {samples}", users.len(), rooms.len());
    println!("server {cores:.2} cores, {} MiB resident", server.resident_bytes()? >> 20);
    Ok(())
}

/// Rooms of every size, so that each user is in several; with the indices of their members.
async fn make_rooms(users: &[Client]) -> Result<Vec<(String, Vec<usize>)>> {
    let mut rooms = Vec::new();
    for (kind, size) in ROOM_SIZES.into_iter().enumerate() {
        let size = size.min(users.len());
        for n in 0..(users.len() / size).max(1) {
            let members: Vec<usize> = (0..size).map(|m| (n * size + m * (kind + 1)) % users.len()).collect();
            let room = users[members[0]].create_room("public_chat").await?;
            let others: Vec<Client> = members[1..].iter().map(|m| users[*m].clone()).collect();
            join_all(&others, &room).await?;
            rooms.push((room, members));
        }
    }
    Ok(rooms)
}

/// A device that long-polls for as long as the server runs.
async fn poll(user: Client) -> Result<()> {
    let mut since = next_batch(&user.sync(None, 0).await?)?;
    tokio::spawn(async move {
        while let Ok(answer) = user.sync(Some(&since), 30_000).await {
            match next_batch(&answer) {
                Ok(next) => since = next,
                Err(_) => return,
            }
        }
    });
    Ok(())
}

/// Of ten operations: four sends, two typing notices, three receipts, one key query.
async fn operation(n: usize, user: &Client, room: &str) -> Result<()> {
    let room_path = format!("/_matrix/client/v3/rooms/{}", segment(room));
    match n % 10 {
        0..4 => {
            user.send(room, "Good morning").await?;
        }
        4 | 5 => {
            let path = format!("{room_path}/typing/{}", segment(&user.user));
            user.put(&path, json!({ "typing": true, "timeout": 10_000 })).await?;
        }
        6..9 => {
            let last = user.get(&format!("{room_path}/messages?dir=b&limit=1")).await?;
            let event = last["chunk"][0]["event_id"].as_str().unwrap_or_default();
            user.post(&format!("{room_path}/receipt/m.read/{}", segment(event)), json!({})).await?;
        }
        _ => {
            let query = json!({ "device_keys": { &*user.user: [] } });
            user.post("/_matrix/client/v3/keys/query", query).await?;
        }
    }
    Ok(())
}
