//! Joining a room of 20,000 members that lives on another server.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Setting, join_all, register_many};
use crate::report::Row;
use chappe_bench::{Authority, Client, Server, segment};

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let authority = Authority::new()?;
    let resident = Server::start_federating(&setting.binary, &authority).await?;
    let joining = Server::start_federating(&setting.binary, &authority).await?;
    let users = register_many(&Client::new(resident.client), "f", setting.scaled(20_000)).await?;
    let room = users[0].create_room("public_chat").await?;
    join_all(&users[1..], &room).await?;
    let user = Client::new(joining.client).register("far").await?;
    let path = format!("/_matrix/client/v3/join/{}?server_name={}", segment(&room), segment(&resident.name));
    let (cpu, cpu_there) = (joining.cpu()?, resident.cpu()?);
    let begin = Instant::now();
    user.post(&path, json!({})).await?;
    let inside = begin.elapsed().as_secs_f64();
    // Waits for the members that follow behind.
    let members = user.get(&format!("/_matrix/client/v3/rooms/{}/joined_members", segment(&room))).await?;
    let whole = begin.elapsed().as_secs_f64();
    let (cpu, cpu_there) = (joining.cpu_since(cpu)?, resident.cpu_since(cpu_there)?);
    let known = members["joined"].as_object().context("no members")?.len();
    anyhow::ensure!(known == users.len() + 1, "{known} members are known after the join");
    let measured = format!(
        "in the room after {inside:.2} s, all members known after {whole:.2} s; processor time {:.2} s here, {:.2} s there; {} MiB resident",
        cpu.as_secs_f64(),
        cpu_there.as_secs_f64(),
        joining.resident_bytes()? >> 20,
    );
    Ok(vec![Row::new(format!("join of a room of {} members over federation", users.len()), measured)])
}
