//! 1,000 events a second from one other server, in transactions of 50, into one room.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use serde_json::Value;

use super::Setting;
use crate::{
    peer::{Link, Peer},
    report::Row,
    stats::{Samples, per_second},
};
use chappe_bench::{Authority, Client, Server};

/// Events of a transaction: as many as the specification allows.
const TOGETHER: usize = 50;
/// Events offered a second.
const RATE: usize = 1_000;

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let authority = Authority::new()?;
    let server = Server::start_federating(&setting.binary, &authority).await?;
    let local = Client::new(server.client).register("near").await?;
    let room = local.create_room("public_chat").await?;
    let peer = Peer::start(&authority, std::sync::Arc::new(|path, _| taken(path))).await?;
    let mut link = peer.link(&server.name).await?;
    let mut seat = link.join(&room).await?;
    let count = setting.scaled(20_000).next_multiple_of(2 * TOGETHER);
    let mut events = Vec::with_capacity(count);
    for n in 0..count {
        events.push(peer.message(&mut seat, &n.to_string())?.1);
    }
    let (paced, quick) = events.split_at(count / 2);
    let (cpu, begin) = (server.cpu()?, Instant::now());
    let samples = offer(&mut link, paced, begin).await?;
    let cores = server.cpu_since(cpu)?.as_secs_f64() / begin.elapsed().as_secs_f64();
    let (cpu, begin) = (server.cpu()?, Instant::now());
    for (n, some) in quick.chunks(TOGETHER).enumerate() {
        link.send(&format!("q{n}"), some.to_vec()).await?;
    }
    let took = begin.elapsed();
    let rate = per_second(quick.len(), took);
    let quick_cores = server.cpu_since(cpu)?.as_secs_f64() / took.as_secs_f64();
    let what = |how: &str| format!("events of one other server, {TOGETHER} in a transaction, {how}");
    Ok(vec![
        Row::new(
            what(&format!("{RATE}/s offered")),
            format!("each answered after: {samples}; server {cores:.2} cores"),
        )
        .aim("p99 1 s", samples.p99() < 1_000.0),
        Row::new(
            what("one transaction after the other"),
            format!("{rate:.0}/s; server {quick_cores:.2} cores"),
        ),
    ])
}

/// An open loop: each transaction counts from when it was due.
async fn offer(link: &mut Link<'_>, events: &[Value], begin: Instant) -> Result<Samples> {
    let mut samples = Samples::default();
    let step = Duration::from_secs(1) / u32::try_from(RATE / TOGETHER)?;
    for (n, some) in events.chunks(TOGETHER).enumerate() {
        let due = begin + step * u32::try_from(n)?;
        tokio::time::sleep_until(due.into()).await;
        link.send(&format!("p{n}"), some.to_vec()).await?;
        samples.add(due.elapsed());
    }
    Ok(samples)
}

/// Transactions of the measured server are taken.
pub(super) fn taken(path: &str) -> Option<Bytes> {
    path.contains("/send/").then(|| Bytes::from_static(b"{\"pdus\":{}}"))
}
