//! The first sync of an account in 300 rooms of 300 members.

use std::time::Instant;

use anyhow::Result;
use http::Method;

use super::{Setting, join_all, register_many};
use crate::stats::Samples;
use chappe_bench::{Client, Server, sync_path};

pub(super) async fn run(setting: Setting) -> Result<()> {
    let server = Server::start(&setting.binary).await?;
    let users = register_many(&Client::new(server.client), "i", setting.scaled(300)).await?;
    let rooms = setting.scaled(300);
    for n in 0..rooms {
        let room = users[n % users.len()].create_room("public_chat").await?;
        let others: Vec<Client> =
            users.iter().enumerate().filter(|(m, _)| *m != n % users.len()).map(|(_, u)| u.clone()).collect();
        join_all(&others, &room).await?;
    }
    let filter = "&filter=%7B%22room%22%3A%7B%22state%22%3A%7B%22lazy_load_members%22%3Atrue%7D%7D%7D";
    for (what, filter) in [("with lazy members", filter), ("with all members", "")] {
        let mut samples = Samples::default();
        let mut bytes = 0;
        for user in users.iter().take(5) {
            let begin = Instant::now();
            let path = format!("{}{filter}", sync_path(None, 0));
            bytes = user.bytes(Method::GET, &path, None).await?.len();
            samples.add(begin.elapsed());
        }
        let members = users.len();
        println!("initial sync, {rooms} rooms of {members} members, {what}: {samples}, {bytes} bytes");
    }
    println!("resident memory after it: {} MiB", server.resident_bytes()? >> 20);
    Ok(())
}
