//! Messages to 500 other servers of which 400 are dead: half of those refuse connections, half take them and say nothing.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Setting, receive::taken};
use crate::{
    peer::{Answers, Peer},
    report::Row,
    stats::Samples,
};
use chappe_bench::{Authority, Client, Server};

/// Messages, and how many a second.
const MESSAGES: usize = 100;
const RATE: u32 = 10;

type Arrival = (String, Instant);

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let authority = Authority::new()?;
    let server = Server::start_federating(&setting.binary, &authority).await?;
    let local = Client::new(server.client).register("near").await?;
    let room = local.create_room("public_chat").await?;
    let (alive, dead) = (setting.scaled(100), setting.scaled(400));
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let listening: Answers = Arc::new(move |path, body| note(&arrived, path, body));
    let mut peers = Vec::new();
    for n in 0..alive + dead {
        let answers: Answers =
            if n < alive { Arc::clone(&listening) } else { Arc::new(|path, _| taken(path)) };
        let peer = Peer::start(&authority, answers).await?;
        peer.link(&server.name).await?.join(&room).await?;
        peers.push(peer);
    }
    // Everybody has heard of everybody; what still arrives is not counted.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut dying = peers.split_off(alive);
    let silent = dying.split_off(dead / 2);
    drop(dying);
    silent.iter().for_each(Peer::fall_silent);
    let (cpu, begin) = (server.cpu()?, Instant::now());
    let mut due = HashMap::new();
    for n in 0..MESSAGES {
        let at = begin + Duration::from_secs(1) / RATE * u32::try_from(n)?;
        tokio::time::sleep_until(at.into()).await;
        let text = format!("fan {n}");
        local.send(&room, &text).await?;
        due.insert(text, at);
    }
    let samples = collect(&mut arrivals, &due, MESSAGES * alive).await?;
    let took = begin.elapsed();
    let cores = server.cpu_since(cpu)?.as_secs_f64() / took.as_secs_f64();
    let measured =
        format!("{samples}; server {cores:.2} cores, {} MiB resident", server.resident_bytes()? >> 20);
    let what = format!(
        "messages at {RATE}/s to {alive} living servers beside {dead} dead ones: delay at the living"
    );
    Ok(vec![Row::new(what, measured).aim("p99 1 s", samples.p99() < 1_000.0)])
}

/// Notes the messages of a transaction.
fn note(arrived: &mpsc::UnboundedSender<Arrival>, path: &str, body: &Bytes) -> Option<Bytes> {
    let answer = taken(path)?;
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    for event in body["pdus"].as_array().into_iter().flatten() {
        if let Some(text) = event["content"]["body"].as_str() {
            arrived.send((text.to_owned(), Instant::now())).ok()?;
        }
    }
    Some(answer)
}

async fn collect(
    arrivals: &mut mpsc::UnboundedReceiver<Arrival>,
    due: &HashMap<String, Instant>,
    count: usize,
) -> Result<Samples> {
    let mut samples = Samples::default();
    while samples.len() < count {
        let next = tokio::time::timeout(Duration::from_mins(1), arrivals.recv()).await;
        let (text, at) =
            next.with_context(|| format!("{} of {count} arrived", samples.len()))?.context("closed")?;
        if let Some(due) = due.get(&text) {
            samples.add(at.saturating_duration_since(*due));
        }
    }
    Ok(samples)
}
