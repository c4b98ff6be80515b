//! From the request of a send to the arrival in the syncs of a room's members.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;

use super::{Setting, join_all, register_many, until_waiting};
use crate::{
    report::Row,
    stats::{Samples, per_second},
};
use chappe_bench::{Client, Server};

/// Number of a message and when it arrived.
type Arrival = (usize, Instant);

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let mut rows = big_room(&setting).await?;
    rows.extend(steady_rate(&setting).await?);
    Ok(rows)
}

/// One room with 1,000 members who all wait: how long until each of them has a message, said alone and in a stream.
async fn big_room(setting: &Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "d", setting.scaled(1000)).await?;
    let room = users[0].create_room("public_chat").await?;
    join_all(&users[1..], &room).await?;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    listen(&users, &arrived).await?;
    until_waiting(&server, users.len()).await?;
    let (mut each, mut last) = (Samples::default(), Samples::default());
    for n in 0..50 {
        let begin = Instant::now();
        users[n].send(&room, &marker(n)).await?;
        for _ in 0..users.len() {
            let (text, at) = next_arrival(&mut arrivals).await?;
            anyhow::ensure!(text == n, "message {text} arrived while {n} was waited for");
            each.add(at - begin);
        }
        last.add(begin.elapsed());
        until_waiting(&server, users.len()).await?;
    }
    let members = users.len();
    let what = format!("delivery of a message to {members} syncing members of a room");
    let mut rows = vec![Row::new(what, format!("each: {each}; the last: {last}"))];
    let senders: Vec<(Client, String)> =
        users[..50].iter().map(|user| (user.clone(), room.clone())).collect();
    for rate in [50, 500] {
        let load = Load { server: &server, senders: &senders, rate, seconds: 10, receivers: members };
        let (samples, measured) = load.run(&mut arrivals).await?;
        let what = format!("delivery at {rate} sends/s in a room of {members} syncing members");
        let row = Row::new(what, measured);
        rows.push(if rate == 500 { row.aim("p99 25 ms", samples.p99() < 25.0) } else { row });
    }
    Ok(rows)
}

/// 50 rooms of 4 members, all of whom sync.
async fn steady_rate(setting: &Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let base = Client::new(server.client);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut senders = Vec::new();
    for n in 0..50 {
        let users = register_many(&base, &format!("r{n}x"), 4).await?;
        let room = users[0].create_room("public_chat").await?;
        join_all(&users[1..], &room).await?;
        listen(&users, &arrived).await?;
        senders.push((users[0].clone(), room));
    }
    until_waiting(&server, 4 * senders.len()).await?;
    let load = Load { server: &server, senders: &senders, rate: 500, seconds: 20, receivers: 4 };
    let (samples, measured) = load.run(&mut arrivals).await?;
    let row = Row::new("delivery at 500 sends/s in 50 rooms of 4 syncing members", measured);
    Ok(vec![row.aim("p99 25 ms", samples.p99() < 25.0)])
}

/// Sends at a rate, open loop: each is due at its time, whatever became of those before.
struct Load<'a> {
    server: &'a Server,
    senders: &'a [(Client, String)],
    /// A second.
    rate: usize,
    seconds: usize,
    /// Syncs in which each message arrives.
    receivers: usize,
}

impl Load<'_> {
    async fn run(&self, arrivals: &mut mpsc::UnboundedReceiver<Arrival>) -> Result<(Samples, String)> {
        let total = self.rate * self.seconds;
        let (begin, cpu) = (Instant::now(), self.server.cpu()?);
        let due = |n: usize| {
            begin + Duration::from_secs_f64(1.0) * u32::try_from(n).unwrap_or(0) / self.per_second()
        };
        let sending = async {
            for n in 0..total {
                tokio::time::sleep_until(due(n).into()).await;
                let (user, room) = self.senders[n % self.senders.len()].clone();
                tokio::spawn(async move { user.send(&room, &marker(n)).await });
            }
            Ok((begin.elapsed(), self.server.cpu_since(cpu)?))
        };
        let receiving = async {
            let mut samples = Samples::default();
            while samples.len() < total * self.receivers
                && let Ok((n, at)) = next_arrival(arrivals).await
            {
                samples.add(at.saturating_duration_since(due(n)));
            }
            anyhow::Ok(samples)
        };
        let ((took, cpu), samples) = futures_util::future::try_join(sending, receiving).await?;
        let rate = per_second(total, took);
        let cores = cpu.as_secs_f64() / took.as_secs_f64();
        // A device that fell behind by more events than it asks for is told that there is a gap, instead of the events.
        let skipped = total * self.receivers - samples.len();
        let measured = format!(
            "{rate:.0} sends/s, {} deliveries, {skipped} left to gaps: {samples}; server {cores:.2} cores",
            samples.len()
        );
        Ok((samples, measured))
    }

    fn per_second(&self) -> u32 {
        u32::try_from(self.rate).unwrap_or(u32::MAX)
    }
}

async fn next_arrival(arrivals: &mut mpsc::UnboundedReceiver<Arrival>) -> Result<Arrival> {
    let arrival = tokio::time::timeout(Duration::from_secs(5), arrivals.recv()).await;
    arrival.context("a delivery is missing")?.context("listeners ended")
}

/// Each user long-polls; every message that arrives is told with its time.
async fn listen(users: &[Client], arrived: &mpsc::UnboundedSender<Arrival>) -> Result<()> {
    for user in users {
        let (_, mut since) = user.sync_bytes(None, 0).await?;
        let (user, arrived) = (user.clone(), arrived.clone());
        tokio::spawn(async move {
            while let Ok((bytes, next)) = user.sync_bytes(Some(&since), 30_000).await {
                let at = Instant::now();
                for number in numbers(&bytes) {
                    if arrived.send((number, at)).is_err() {
                        return;
                    }
                }
                since = next;
            }
        });
    }
    Ok(())
}

fn marker(number: usize) -> String {
    format!("marker-{number}-")
}

/// The numbers of the messages in a sync answer.
fn numbers(bytes: &[u8]) -> Vec<usize> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let marked = text.split("\"marker-").skip(1);
    marked.filter_map(|rest| rest.split_once('-')?.0.parse().ok()).collect()
}
