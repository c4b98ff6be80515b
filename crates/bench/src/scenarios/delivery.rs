//! From the request of a send to the arrival in the syncs of a room's members.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http::Method;
use tokio::sync::mpsc;

use super::{Setting, join_all, next_batch, register_many};
use crate::stats::{Samples, per_second};
use chappe_bench::{Client, Server, sync_path};

pub(super) async fn run(setting: Setting) -> Result<()> {
    big_room(&setting).await?;
    steady_rate(&setting).await
}

/// One room with 1,000 members who all wait: how long until the first and the last of them has a message.
async fn big_room(setting: &Setting) -> Result<()> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "d", setting.scaled(1000)).await?;
    let room = users[0].create_room("public_chat").await?;
    join_all(&users[1..], &room).await?;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    listen(&users[1..], &arrived).await?;
    let (mut each, mut last) = (Samples::default(), Samples::default());
    for n in 0..20 {
        let marker = format!("marker-{n}-");
        let begin = Instant::now();
        users[0].send(&room, &marker).await?;
        let mut waiting = users.len() - 1;
        while waiting > 0 {
            let arrival = tokio::time::timeout(Duration::from_secs(20), arrivals.recv());
            let (text, at): (String, Instant) = arrival.await?.context("listeners ended")?;
            if text == marker {
                each.add(at - begin);
                waiting -= 1;
            }
        }
        last.add(begin.elapsed());
    }
    println!("room of {} syncing members, each arrival: {each}", users.len());
    println!("room of {} syncing members, last arrival: {last}", users.len());
    Ok(())
}

/// 50 rooms of 4 members: 500 sends a second, open loop.
async fn steady_rate(setting: &Setting) -> Result<()> {
    let server = Server::start(&setting.binary).await?;
    let base = Client::new(server.client);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut senders = Vec::new();
    for n in 0..50 {
        let users = register_many(&base, &format!("r{n}x"), 4).await?;
        let room = users[0].create_room("public_chat").await?;
        join_all(&users[1..], &room).await?;
        listen(&users[1..], &arrived).await?;
        senders.push((users[0].clone(), room));
    }
    let begin = Instant::now();
    let cpu = server.cpu()?;
    let mut sent = std::collections::BTreeMap::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let total = 500 * 20;
    for n in 0..total {
        ticks.tick().await;
        let (user, room) = senders[n % senders.len()].clone();
        let marker = format!("marker-{n}-");
        sent.insert(marker.clone(), Instant::now());
        tokio::spawn(async move { user.send(&room, &marker).await });
    }
    let rate = per_second(total, begin.elapsed());
    let cores = server.cpu_since(cpu)?.as_secs_f64() / begin.elapsed().as_secs_f64();
    let mut samples = Samples::default();
    while samples.len() < total * 3 {
        match tokio::time::timeout(Duration::from_secs(5), arrivals.recv()).await {
            Ok(Some((text, at))) => {
                if let Some(begin) = sent.get(&text) {
                    samples.add(at - *begin);
                }
            }
            _ => anyhow::bail!("{} of {} deliveries arrived", samples.len(), total * 3),
        }
    }
    println!("{rate:.0} sends/s to 3 syncing members each: {samples}, server {cores:.2} cores");
    Ok(())
}

/// Each user long-polls; every `marker-…-` that arrives is told with its time.
async fn listen(users: &[Client], arrived: &mpsc::UnboundedSender<(String, Instant)>) -> Result<()> {
    for user in users {
        let mut since = next_batch(&user.sync(None, 0).await?)?;
        let (user, arrived) = (user.clone(), arrived.clone());
        tokio::spawn(async move {
            loop {
                let answer = user.bytes(Method::GET, &sync_path(Some(&since), 30_000), None).await;
                let at = Instant::now();
                let Ok(bytes) = answer else { return };
                let text = String::from_utf8_lossy(&bytes);
                for marker in markers(&text) {
                    if arrived.send((marker, at)).is_err() {
                        return;
                    }
                }
                let Ok(Ok(next)) = serde_json::from_slice(&bytes).map(|answer| next_batch(&answer)) else {
                    return;
                };
                since = next;
            }
        });
    }
    // Every poll must be under way before the first message is sent.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// Every marker in a sync answer.
fn markers(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split("\"marker-")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|rest| format!("marker-{rest}"))
        .collect();
    found.dedup();
    found
}
