//! The first sync of an account in 300 rooms of 300 members.

use std::time::Instant;

use anyhow::Result;
use http::Method;

use super::{Setting, join_all, register_many};
use crate::{report::Row, stats::Samples};
use chappe_bench::{Client, Server, sync_path};

const LAZY: &str = "&filter=%7B%22room%22%3A%7B%22state%22%3A%7B%22lazy_load_members%22%3Atrue%7D%7D%7D";
/// Users asked; each asks once, as a first sync is a first one only once.
const ASKED: usize = 10;

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "i", setting.scaled(300)).await?;
    let rooms = setting.scaled(300);
    for n in 0..rooms {
        let room = users[n % users.len()].create_room("public_chat").await?;
        let others = users.iter().enumerate().filter(|(m, _)| *m != n % users.len());
        let others: Vec<Client> = others.map(|(_, user)| user.clone()).collect();
        join_all(&others, &room).await?;
    }
    let mut rows = Vec::new();
    for (turn, (what, filter)) in [("lazy members", LAZY), ("all members", "")].into_iter().enumerate() {
        let mut samples = Samples::default();
        let mut bytes = 0;
        let cpu = server.cpu()?;
        for user in users.iter().skip(turn * ASKED).take(ASKED) {
            let begin = Instant::now();
            let path = format!("{}{filter}", sync_path(None, 0));
            bytes = user.bytes(Method::GET, &path, None).await?.len();
            samples.add(begin.elapsed());
        }
        let each = server.cpu_since(cpu)? / u32::try_from(samples.len().max(1))?;
        rows.push(Row::new(
            format!("initial sync, {rooms} rooms of {} members, {what}", users.len()),
            format!("{samples}; {} kB, {} ms of processor time", bytes / 1000, each.as_millis()),
        ));
    }
    let resident = server.resident_bytes()? >> 20;
    rows.push(Row::new("resident memory after these", format!("{resident} MiB")));
    Ok(rows)
}
