//! SIGKILL at random moments under load: what was acknowledged is there, once and in order, and no stream
//! position is used twice.
#![expect(
    clippy::disallowed_methods,
    reason = "the test stands outside the server: it sleeps and spawns its clients"
)]

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use chappe_bench::{Client, Server, segment};
use serde_json::Value;

const ROUNDS: u64 = 100;
const SENDERS: usize = 4;

/// One client with what it knows.
struct Sender {
    client: Client,
    room: String,
    /// Bodies whose send was answered with 200, in order, with their event ids.
    acknowledged: Vec<(String, String)>,
    /// Bodies that were sent but never answered: they may have happened or not.
    unanswered: BTreeSet<String>,
    /// The token of the last sync, and how many acknowledged events it covers.
    since: String,
    seen: usize,
    count: u64,
}

impl Sender {
    async fn new(base: &Client, name: &str) -> Result<Self> {
        let client = base.register(name).await?;
        let room = client.create_room("private_chat").await?;
        let since = token(&client.sync(None, 0).await?)?;
        Ok(Self {
            client,
            room,
            acknowledged: Vec::new(),
            unanswered: BTreeSet::new(),
            since,
            seen: 0,
            count: 0,
        })
    }

    /// Sends until the server is gone.
    async fn load(mut self) -> Self {
        loop {
            self.count += 1;
            let body = format!("message {}", self.count);
            let Ok(event) = self.client.send(&self.room, &body).await else {
                self.unanswered.insert(body);
                return self;
            };
            self.acknowledged.push((body, event));
        }
    }

    /// The sync from the token before the crash gives what came after it: nothing is missing, nothing twice.
    async fn check_sync(&mut self) -> Result<()> {
        let mut found = Vec::new();
        let answer = self.client.sync(Some(&self.since), 0).await?;
        let timeline = &answer["rooms"]["join"][&self.room]["timeline"];
        if timeline["limited"].as_bool() == Some(true) {
            found = self.messages_down_to(self.seen.checked_sub(1)).await?;
        } else {
            found.extend(bodies(timeline["events"].as_array().map_or(&[][..], Vec::as_slice)));
        }
        self.check(&found, self.seen)?;
        self.since = token(&answer)?;
        self.seen = self.acknowledged.len();
        Ok(())
    }

    /// The messages of the room in order, back to the acknowledged one at `stop` (excluded).
    async fn messages_down_to(&self, stop: Option<usize>) -> Result<Vec<(String, String)>> {
        let stop = stop.and_then(|at| self.acknowledged.get(at)).map(|(_, event)| event.clone());
        let mut found = Vec::new();
        let mut from = String::new();
        loop {
            let path =
                format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=100{from}", segment(&self.room));
            let page = self.client.get(&path).await?;
            for row in bodies(page["chunk"].as_array().context("no chunk")?) {
                if Some(&row.1) == stop.as_ref() {
                    found.reverse();
                    return Ok(found);
                }
                found.push(row);
            }
            match page["end"].as_str() {
                Some(end) => from = format!("&from={}", segment(end)),
                None => break,
            }
        }
        found.reverse();
        Ok(found)
    }

    /// `found` is what was acknowledged from `first` on, in order; only unanswered ones may stand between.
    fn check(&self, found: &[(String, String)], first: usize) -> Result<()> {
        let certain: Vec<_> = found.iter().filter(|(body, _)| !self.unanswered.contains(body)).collect();
        let expected: Vec<_> = self.acknowledged[first..].iter().collect();
        anyhow::ensure!(certain == expected, "expected {expected:?}, found {certain:?}");
        let once: BTreeSet<_> = found.iter().map(|(_, event)| event).collect();
        anyhow::ensure!(once.len() == found.len(), "an event is there twice");
        Ok(())
    }
}

fn token(answer: &Value) -> Result<String> {
    Ok(answer["next_batch"].as_str().context("no next_batch")?.to_owned())
}

/// Body and event id of every message.
fn bodies(events: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    events
        .iter()
        .filter_map(|event| Some((text(&event["content"]["body"])?, text(&event["event_id"])?)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_it_acknowledged() -> Result<()> {
    let binary = Path::new(env!("CARGO_BIN_EXE_chappe"));
    let mut server = Server::start(binary).await?;
    let mut senders = Vec::new();
    for n in 0..SENDERS {
        senders.push(Sender::new(&Client::new(server.client), &format!("sender{n}")).await?);
    }
    for round in 0..ROUNDS {
        let tasks: Vec<_> = senders.drain(..).map(|sender| tokio::spawn(sender.load())).collect();
        // Spread over 20 to 219 ms: the kill meets every phase of a write.
        tokio::time::sleep(Duration::from_millis(20 + round * 7919 % 200)).await;
        let folder = server.kill().await?;
        for task in tasks {
            senders.push(task.await?);
        }
        server = Server::start_in(binary, folder).await?;
        let base = Client::new(server.client);
        for sender in &mut senders {
            sender.client = sender.client.at(&base);
            sender.check_sync().await.with_context(|| format!("round {round}"))?;
        }
    }
    for sender in &senders {
        sender.check(&sender.messages_down_to(None).await?, 0)?;
    }
    let acknowledged: usize = senders.iter().map(|sender| sender.acknowledged.len()).sum();
    assert!(acknowledged > 100, "only {acknowledged} events: the load was no load");
    server.stop().await?;
    Ok(())
}
