//! Joining a room of 50,000 members that lives on another server: what the server of whoever joins has to do.

use anyhow::{Context as _, Result};

use super::Setting;
use crate::{hosted::Hosted, report::Row, stats::measured};
use chappe_bench::{Authority, Server, segment};

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let authority = Authority::new()?;
    let members = setting.scaled(50_000);
    let hosted = Hosted::new(&authority, members).await?;
    let server = Server::start_federating(&setting.binary, &authority).await?;
    let cpu = server.cpu()?;
    let mut user = None;
    let took = measured(async {
        user = Some(hosted.joined_by(&server, "near").await?.0);
        Ok(())
    })
    .await?;
    let cpu = server.cpu_since(cpu)?;
    let user = user.context("nobody joined")?;
    let path = format!("/_matrix/client/v3/rooms/{}/joined_members", segment(&hosted.seat.room));
    let known = user.get(&path).await?["joined"].as_object().context("no members")?.len();
    anyhow::ensure!(known == members + 1, "{known} members are known after the join");
    let measured = format!(
        "{:.2} s; processor time {:.2} s; {} MiB resident",
        took.as_secs_f64(),
        cpu.as_secs_f64(),
        server.resident_bytes()? >> 20,
    );
    Ok(vec![Row::new(
        format!("join of a room of {members} members on a server that answers at once"),
        measured,
    )])
}
