//! A mixed day: 1,000 users in shared rooms of 5 to 200 members, two long-polling devices each, and 100
//! operations a second, open loop.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Setting, join_all, register_many, until_waiting};
use crate::{report::Row, stats::Samples};
use chappe_bench::{Client, Server, segment};

const ROOM_SIZES: [usize; 6] = [5, 10, 20, 50, 100, 200];
const SECONDS: u64 = 60;

/// A room and its members.
type Room = (String, Vec<Client>);

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "x", setting.scaled(1000)).await?;
    let rooms = make_rooms(&users).await?;
    let day = Instant::now();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    for user in &users {
        poll(user.clone(), day, arrived.clone()).await?;
        poll(user.another_device().await?, day, arrived.clone()).await?;
    }
    until_waiting(&server, 2 * users.len()).await?;

    let (done, mut all_done) = mpsc::unbounded_channel();
    let (begin, cpu) = (Instant::now(), server.cpu()?);
    for n in 0..SECONDS * 100 {
        // Due at its time, whatever became of those before.
        let due = begin + Duration::from_millis(10 * n);
        tokio::time::sleep_until(due.into()).await;
        let operation = Operation::new(usize::try_from(n)?, day, &rooms);
        let done = done.clone();
        tokio::spawn(async move {
            let answer = operation.run().await;
            let _ = done.send(answer.map(|()| due.elapsed()));
        });
    }
    drop(done);
    let cores = server.cpu_since(cpu)?.as_secs_f64() / begin.elapsed().as_secs_f64();
    let mut samples = Samples::default();
    while let Some(took) = all_done.recv().await {
        samples.add(took?);
    }
    let mut deliveries = Samples::default();
    while let Ok(took) = arrivals.try_recv() {
        deliveries.add(took);
    }
    let resident = server.resident_bytes()? >> 20;
    let what = format!("mixed day, {} users, {} rooms, 100 operations/s", users.len(), rooms.len());
    Ok(vec![
        Row::new(format!("{what}: answers"), samples.to_string()).aim("p99 20 ms", samples.p99() < 20.0),
        Row::new(format!("{what}: deliveries"), format!("{deliveries}; {} of them", deliveries.len())),
        Row::new(format!("{what}: server"), format!("{cores:.2} cores, {resident} MiB resident"))
            .aim("0.5 cores", cores < 0.5),
    ])
}

/// Rooms of every size, so that each user is in several.
async fn make_rooms(users: &[Client]) -> Result<Vec<Room>> {
    let mut rooms = Vec::new();
    for (kind, size) in ROOM_SIZES.into_iter().enumerate() {
        let size = size.min(users.len());
        for n in 0..(users.len() / size).max(1) {
            let place = |m: usize| (n * size + m * (kind + 1)) % users.len();
            let members: Vec<Client> = (0..size).map(|m| users[place(m)].clone()).collect();
            let room = members[0].create_room("public_chat").await?;
            join_all(&members[1..], &room).await?;
            rooms.push((room, members));
        }
    }
    Ok(rooms)
}

/// A device that long-polls for as long as the server runs, and tells how old the messages are that arrive.
async fn poll(user: Client, day: Instant, arrived: mpsc::UnboundedSender<Duration>) -> Result<()> {
    let (_, mut since) = user.sync_bytes(None, 0).await?;
    tokio::spawn(async move {
        while let Ok((bytes, next)) = user.sync_bytes(Some(&since), 30_000).await {
            since = next;
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            for rest in text.split("sent at ").skip(1) {
                let sent = rest.split_once(' ').and_then(|(number, _)| number.parse().ok());
                let Some(sent) = sent.map(Duration::from_micros) else { continue };
                let _ = arrived.send(day.elapsed().saturating_sub(sent));
            }
        }
    });
    Ok(())
}

/// What one of the users does. Of ten: four sends, two typing notices, three readings, one key query.
struct Operation {
    n: usize,
    day: Instant,
    user: Client,
    path: String,
    room: String,
    /// Some members of the room.
    others: Vec<String>,
}

impl Operation {
    fn new(n: usize, day: Instant, rooms: &[Room]) -> Self {
        let (room, members) = &rooms[n * 7919 % rooms.len()];
        Self {
            n,
            day,
            user: members[n * 104_729 % members.len()].clone(),
            path: format!("/_matrix/client/v3/rooms/{}", segment(room)),
            room: room.clone(),
            others: members.iter().take(20).map(|member| member.user.to_string()).collect(),
        }
    }

    async fn run(self) -> Result<()> {
        let Self { n, day, user, path, room, others } = self;
        match n % 10 {
            0..4 => {
                let text = format!("Good morning, sent at {} µs of this day", day.elapsed().as_micros());
                user.send(&room, &text).await?;
            }
            4 | 5 => {
                let path = format!("{path}/typing/{}", segment(&user.user));
                user.put(&path, json!({ "typing": n % 20 < 10, "timeout": 10_000 })).await?;
            }
            6..9 => {
                let last = user.get(&format!("{path}/messages?dir=b&limit=20")).await?;
                let event = last["chunk"][0]["event_id"].as_str().unwrap_or_default();
                user.post(&format!("{path}/receipt/m.read/{}", segment(event)), json!({})).await?;
            }
            _ => {
                let wanted: serde_json::Map<String, Value> =
                    others.into_iter().map(|user| (user, json!([]))).collect();
                user.post("/_matrix/client/v3/keys/query", json!({ "device_keys": wanted })).await?;
            }
        }
        Ok(())
    }
}
