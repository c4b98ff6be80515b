//! Finding people among 600,000 of one server, by beginnings that few and that many names have.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use chappe_kv::Db;
use chappe_kv_rocksdb::{Options, Rocks};
use chappe_store::{
    Json, Store, Tx,
    accounts::{User, Users},
    accounts_data::Profiles,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ruma::OwnedUserId;
use serde_json::{Value, json};

use super::{Setting, register_many};
use crate::{
    report::Row,
    stats::{Samples, measured},
};
use chappe_bench::{Client, Server};

const PATH: &str = "/_matrix/client/v3/user_directory/search";
/// Searches of each kind, and how many at a time.
const TIMES: usize = 400;
const AT_ONCE: usize = 4;
/// Accounts written in one batch.
const BATCH: usize = 5_000;
/// How long the index may take to be built.
const BUILT_WITHIN: Duration = Duration::from_mins(6);
const FIRST: [&str; 20] = [
    "Jean",
    "Marie",
    "Pierre",
    "Michèle",
    "André",
    "Françoise",
    "Philippe",
    "Monique",
    "Éric",
    "Catherine",
    "Noël",
    "Nathalie",
    "Alain",
    "Isabelle",
    "Jérôme",
    "Jacqueline",
    "Benoît",
    "Anne",
    "Zoé",
    "Sylvie",
];
const HEAD: [&str; 20] = [
    "Mar", "Du", "Ber", "Le", "Ro", "Mo", "Gar", "Fou", "La", "Per", "Che", "Val", "Bou", "Gir", "Hé", "Ca",
    "Tes", "Pou", "Vi", "Guy",
];
const MIDDLE: [&str; 16] = [
    "ti", "pon", "nar", "fè", "bi", "re", "cha", "vi", "lle", "ga", "mo", "ten", "sso", "rau", "lin", "quet",
];
const TAIL: [&str; 10] = ["n", "t", "d", "vre", "s", "au", "ard", "et", "in", "er"];

/// What somebody looks for among so many, and what kind of question that is.
fn terms(count: usize) -> [(&'static str, String); 6] {
    let whole = name(count / 2).replace(" [Dinum]", "").to_lowercase();
    [
        ("one letter, which most names begin with", "m".to_owned()),
        ("a frequent beginning", "mar".to_owned()),
        ("a first name and the beginning of a last name", "jean dup".to_owned()),
        ("a whole name", whole),
        ("the beginning of a user id", format!("p{}", count / 20)),
        ("what nobody is called", "xylophone".to_owned()),
    ]
}

/// What the person with this number is called: some names are far more frequent than others.
fn name(n: usize) -> String {
    let mut random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut pick = |list: &[&'static str]| {
        random = (random ^ (random >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let place = (random >> 33) % (list.len() * list.len());
        // The first ones of a list more often than the last ones.
        list[list.len() - 1 - place.isqrt()]
    };
    format!("{} {}{}{} [Dinum]", pick(&FIRST), pick(&HEAD), pick(&MIDDLE), pick(&TAIL))
}

/// Writes the accounts into the database of a stopped server.
async fn fill(folder: &Path, server: &str, count: usize) -> Result<()> {
    let rocks =
        Rocks::open(&folder.join("data/database"), &Options::default(), chappe_store::registry::class)?;
    let store = Store::open(Db::new(rocks)).await?;
    for first in (0..count).step_by(BATCH) {
        let mut tx = Tx::new();
        for n in first..(first + BATCH).min(count) {
            let user: OwnedUserId = format!("@p{n}:{server}").try_into()?;
            tx.put::<Users>(&user, &Json(User::default()));
            let name = Value::from(name(n)).to_string().into_bytes();
            tx.put::<Profiles>(&(user, "displayname".to_owned()), &name);
        }
        store.commit(tx).await?;
    }
    Ok(())
}

/// How many are found; none yet while the index is being built.
async fn found(user: &Client, term: &str) -> Result<usize> {
    let answer = user.post(PATH, json!({ "search_term": term, "limit": 20 })).await?;
    Ok(answer["results"].as_array().context("no results")?.len())
}

pub(super) async fn run(setting: Setting) -> Result<Vec<Row>> {
    let server = Server::start(&setting.binary).await?;
    let asking = register_many(&Client::new(server.client), "asking", AT_ONCE).await?;
    let room = asking[0].create_room("private_chat").await?;
    let (count, name) = (setting.scaled(600_000), server.name.clone());
    let folder = server.stop().await?;
    fill(folder.path(), &name, count).await?;
    // It is built anew from the database.
    std::fs::remove_dir_all(folder.path().join("data/search"))?;
    let index = folder.path().join("data/search");
    let (server, begin) = (Server::start_in(&setting.binary, folder).await?, Instant::now());
    let base = Client::new(server.client);
    let asking: Vec<Client> = asking.iter().map(|user| user.at(&base)).collect();
    let last = format!("p{}", count - 1);
    while found(&asking[0], &last).await? == 0 {
        anyhow::ensure!(begin.elapsed() < BUILT_WITHIN, "the index is not built");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let disk = bytes_below(&index)? >> 20;
    let memory = server.resident_bytes()? >> 20;
    let built = begin.elapsed().as_secs();
    let mut rows = vec![Row::new(
        format!("index of {count} people"),
        format!("built in {built} s; {disk} MiB on disk, server {memory} MiB resident"),
    )];
    for (kind, term) in terms(count) {
        let (samples, found) = search(&asking, &term).await?;
        let met = samples.p99() < 50.0;
        rows.push(
            Row::new(format!("the same: {kind}, {found} shown"), samples.to_string()).aim("p99 50 ms", met),
        );
    }
    let (samples, _) = tokio::select! {
        searched = search(&asking, "jean dup") => searched?,
        ended = talk(&asking[0], &room) => return ended.map(|()| rows),
    };
    let met = samples.p99() < 50.0;
    rows.push(Row::new("the same while 50 messages/s are said", samples.to_string()).aim("p99 50 ms", met));
    Ok(rows)
}

/// Says something 50 times a second, until it is dropped.
async fn talk(user: &Client, room: &str) -> Result<()> {
    loop {
        user.send(room, "hello").await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Searches for `term`, and how many that shows.
async fn search(asking: &[Client], term: &str) -> Result<(Samples, usize)> {
    let shown = found(&asking[0], term).await?;
    let mut samples = Samples::default();
    let searches = stream::iter(0..TIMES).map(|n| measured(found(&asking[n % asking.len()], term)));
    let taken: Vec<Duration> = searches.buffer_unordered(AT_ONCE).try_collect().await?;
    for took in taken {
        samples.add(took);
    }
    Ok((samples, shown))
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
