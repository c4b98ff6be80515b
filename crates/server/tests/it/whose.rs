//! A data folder that is another server's, one that has lost its key, and keys that follow each other.

use std::path::Path;

use chappe_kv::Db;
use chappe_kv_rocksdb::{Options, Rocks};
use chappe_server::{Server, config};
use chappe_store::{Meta, Tx};
use chappe_world::World;
use serde_json::Value;

use crate::backup::{configuration, run, store};

/// A server on the disk under a name.
async fn start(folder: &Path, name: &str) -> Result<Server, String> {
    let data = folder.join("data");
    let text = configuration(&data).replace("\"hs1\"", &format!("{name:?}"));
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(folder.join("chappe.toml"), &text).unwrap();
    let config = config::parse("chappe.toml", &text, std::iter::empty()).unwrap();
    let rocks = Rocks::open(&data.join("database"), &Options::default(), chappe_store::registry::class);
    let world = World::real(&config.outbound).unwrap();
    Server::start(&config, world, Db::new(rocks.unwrap())).await.map_err(|error| format!("{error:#}"))
}

/// The same, which must be refused.
async fn refused(folder: &Path, name: &str) -> String {
    let started = start(folder, name).await;
    let sentence = started.as_ref().err().cloned();
    if let Ok(server) = started {
        server.stop().await;
    }
    sentence.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_not_opened_under_another_name() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path(), "hs1").await.unwrap().stop().await;
    let (row, older) = ("format".to_owned(), 3_u32.to_be_bytes().to_vec());
    let mut tx = Tx::new();
    tx.put::<Meta>(&row, &older);
    let database = folder.path().join("data/database");
    store(&database).commit(tx).await.unwrap();
    let sentence = refused(folder.path(), "hs2").await;
    assert!(sentence.contains("that of hs1"), "{sentence}");
    let sentence = run(folder.path(), &["admin", "users", "create", "alice"]).await.unwrap_err();
    assert!(sentence.contains("that of hs1"), "{sentence}");
    let format = store(&database).read().get::<Meta>(&row).await.unwrap();
    assert_eq!(format, Some(older), "it stays as it was");
    start(folder.path(), "hs1").await.unwrap().stop().await;
    assert_eq!(run(folder.path(), &["admin", "users", "list"]).await.unwrap().trim(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_missing_is_not_made_anew_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/signing.key");
    start(folder.path(), "hs1").await.unwrap().stop().await;
    let key = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let sentence = refused(folder.path(), "hs1").await;
    assert!(sentence.contains("from a backup") && sentence.contains("rotate"), "{sentence}");
    assert!(!file.exists());
    run(folder.path(), &["admin", "signing-key", "show"]).await.unwrap_err();
    // As an older release leaves it that nobody had an account on: it did not note the name.
    let mut tx = Tx::new();
    tx.delete::<Meta>(&"server_name".to_owned());
    store(&folder.path().join("data/database")).commit(tx).await.unwrap();
    let sentence = refused(folder.path(), "hs1").await;
    assert!(sentence.contains("from a backup"), "{sentence}");
    assert!(!file.exists());

    run(folder.path(), &["admin", "signing-key", "rotate"]).await.unwrap();
    assert_ne!(std::fs::read(&file).unwrap(), key);
    let server = start(folder.path(), "hs1").await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let sentence = run(folder.path(), &["admin", "signing-key", "rotate"]).await.unwrap_err();
    assert!(sentence.contains("put it back"), "{sentence}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_is_shown_before_it_signs() {
    let folder = tempfile::tempdir().unwrap();
    let shown = async || {
        let said = run(folder.path(), &["admin", "--json", "signing-key", "show"]).await.unwrap();
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let server = start(folder.path(), "hs1").await.unwrap();
    let before = shown().await;
    let said = run(folder.path(), &["admin", "--json", "signing-key", "rotate"]).await.unwrap();
    let first = serde_json::from_str::<Value>(&said).unwrap();
    assert!(first["next"].is_string() && first["next"] == first["key_id"], "{first}");
    let said = run(folder.path(), &["admin", "signing-key", "rotate"]).await.unwrap();
    let next = said.lines().next().unwrap();
    let list = folder.path().join("list.json");
    let list = list.to_str().unwrap();
    run(folder.path(), &["admin", "network", "create", list, "--name", "example.gouv.fr"]).await.unwrap();
    run(folder.path(), &["admin", "network", "add", list, "hs1", "--key", next]).await.unwrap();
    let listed = run(folder.path(), &["admin", "audit", "list"]).await.unwrap();
    assert!(listed.contains("chappe admin signing-key rotate"), "{listed}");
    let waiting = shown().await;
    assert_eq!(waiting["current"], before["current"]);
    let written =
        |key: &Value| format!("{}={}", key["key_id"].as_str().unwrap(), key["public_key"].as_str().unwrap());
    assert_eq!(written(&waiting["next"]), next);
    server.stop().await;

    start(folder.path(), "hs1").await.unwrap().stop().await;
    let after = shown().await;
    assert_eq!(written(&after["current"]), next);
    assert_eq!(written(&after["old"][0]), written(&before["current"]));
    let said = run(folder.path(), &["admin", "signing-key", "show"]).await.unwrap();
    assert!(said.starts_with(next) && said.contains("signed until 20"), "{said}");
}
