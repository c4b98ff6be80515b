//! Joining a room of 20,000 members that lives on another server.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::{Setting, join_all, register_many};
use chappe_bench::{Authority, Client, Server, segment};

pub(super) async fn run(setting: Setting) -> Result<()> {
    let authority = Authority::new()?;
    let resident = Server::start_federating(&setting.binary, &authority).await?;
    let joining = Server::start_federating(&setting.binary, &authority).await?;
    let users = register_many(&Client::new(resident.client), "f", setting.scaled(20_000)).await?;
    let room = users[0].create_room("public_chat").await?;
    join_all(&users[1..], &room).await?;
    let user = Client::new(joining.client).register("far").await?;
    let path = format!("/_matrix/client/v3/join/{}?server_name={}", segment(&room), segment(&resident.name));
    let begin = Instant::now();
    user.post(&path, json!({})).await?;
    println!(
        "join of a room of {} members over federation: {:.2} s",
        users.len(),
        begin.elapsed().as_secs_f64()
    );
    println!("processor time: joining server {:.2} s", joining.cpu()?.as_secs_f64());
    Ok(())
}
