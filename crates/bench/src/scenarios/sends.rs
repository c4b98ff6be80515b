//! Durable sends: each answered only when the event is on disk.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;

use super::{Setting, register_many};
use crate::stats::{Samples, per_second};
use chappe_bench::{Client, Server};

pub(super) async fn run(setting: Setting) -> Result<()> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "s", 128).await?;
    let rooms = try_join_all(users.iter().map(|user| user.create_room("private_chat"))).await?;
    for senders in [1, 16, 128] {
        let begin = Instant::now();
        let (cpu, span) = (server.cpu()?, Duration::from_secs(10));
        let loops =
            users.iter().zip(&rooms).take(senders).map(|(user, room)| send_for(user, room, begin + span));
        let mut samples = Samples::default();
        for one in try_join_all(loops).await? {
            samples.extend(one);
        }
        let rate = per_second(samples.len(), begin.elapsed());
        let cores = server.cpu_since(cpu)?.as_secs_f64() / begin.elapsed().as_secs_f64();
        println!(
            "{senders} senders in rooms of their own: {rate:.0} sends/s, {samples}, server {cores:.2} cores"
        );
    }
    let one_room = users[0].create_room("public_chat").await?;
    super::join_all(&users[1..], &one_room).await?;
    let begin = Instant::now();
    let until = begin + Duration::from_secs(10);
    let mut samples = Samples::default();
    for one in try_join_all(users.iter().map(|user| send_for(user, &one_room, until))).await? {
        samples.extend(one);
    }
    let rate = per_second(samples.len(), begin.elapsed());
    println!("128 senders in one room: {rate:.0} sends/s, {samples}");
    Ok(())
}

/// Sends one message after the other until `until`.
async fn send_for(user: &Client, room: &str, until: Instant) -> Result<Samples> {
    let mut samples = Samples::default();
    while Instant::now() < until {
        let begin = Instant::now();
        user.send(room, "Paris to Lille in nine minutes").await?;
        samples.add(begin.elapsed());
    }
    Ok(samples)
}
