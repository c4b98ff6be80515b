//! The search index after a restart: kept, caught up, or built anew.

use std::{fs, sync::Arc};

use chappe_kv::{Db, Memory};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::home::{Home, User};

/// A server that comes back on the same disk.
struct Disk {
    folder: Arc<TempDir>,
    db: Db,
}

impl Disk {
    fn new() -> Self {
        Self { folder: Arc::new(tempfile::tempdir().unwrap()), db: Db::new(Memory::default()) }
    }

    async fn start(&self, more: &str) -> Home {
        // It is asked again and again until the index has all.
        let unlimited = "client.rates.search = { per_second = 0, burst = 0 }";
        Home::again(&self.folder, &self.db, &format!("{unlimited}\n{more}")).await
    }
}

/// How many hits there are, as soon as the index has all.
async fn count(user: &User<'_>, term: &str, expected: u64) {
    let criteria = json!({ "search_categories": { "room_events": { "search_term": term } } });
    let mut found = Value::Null;
    for _ in 0..250 {
        found =
            user.post("/search", criteria.clone()).await.ok()["search_categories"]["room_events"]["count"]
                .take();
        if found == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(found, expected, "{term}");
}

fn user<'a>(home: &'a Home, (id, device, token): &(String, String, String)) -> User<'a> {
    User { home, id: id.clone(), device: device.clone(), token: token.clone() }
}

async fn finds(user: &User<'_>, term: &str, who: &User<'_>) {
    let found = user.post("/user_directory/search", json!({ "search_term": term })).await.ok();
    assert_eq!(found["results"][0]["user_id"], who.id, "{term}");
}

#[tokio::test]
async fn an_index_is_caught_up_after_a_crash_and_built_anew_where_it_is_lost() {
    let disk = Disk::new();
    let first = disk.start("").await;
    let (alice, bob) = (first.user("alice").await, first.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    let event = alice.say(&room, "1", "mot").await;
    alice.say(&room, "2", "mot encore").await;
    count(&alice, "mot", 2).await;
    // Said and taken back, and never committed to the index.
    alice.say(&room, "3", "mot tardif").await;
    alice.put(&format!("/rooms/{room}/redact/{event}/4"), json!({})).await.ok();
    let (alice, bob) = ((alice.id, alice.device, alice.token), (bob.id, bob.device, bob.token));
    first.crash().await;

    let second = disk.start("").await;
    count(&user(&second, &alice), "mot", 2).await;
    finds(&user(&second, &bob), "alice", &user(&second, &alice)).await;
    second.crash().await;

    fs::remove_dir_all(disk.folder.path().join("search")).unwrap();
    let third = disk.start("").await;
    count(&user(&third, &alice), "mot", 2).await;
    finds(&user(&third, &bob), "alice", &user(&third, &alice)).await;
    third.crash().await;

    for file in fs::read_dir(disk.folder.path().join("search")).unwrap() {
        fs::write(file.unwrap().path(), "damaged").unwrap();
    }
    let fourth = disk.start("").await;
    let alice = user(&fourth, &alice);
    count(&alice, "mot", 2).await;
    alice.say(&room, "5", "mot nouveau").await;
    count(&alice, "mot", 3).await;
    finds(&user(&fourth, &bob), "alice", &alice).await;
}

#[tokio::test]
async fn an_index_of_another_database_or_without_messages_is_not_used() {
    let disk = Disk::new();
    let first = disk.start("").await;
    let alice = first.user("alice").await;
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    alice.say(&room, "1", "mot").await;
    count(&alice, "mot", 1).await;
    let token = alice.token.clone();
    first.crash().await;
    // The same folder under another database: what was said there is not here.
    let other = Disk { folder: disk.folder.clone(), db: Db::new(Memory::default()) };
    let second = other.start("").await;
    let eve = second.user("eve").await;
    let room = eve.room(json!({ "preset": "public_chat" })).await;
    eve.say(&room, "1", "autre chose").await;
    count(&eve, "autre", 1).await;
    count(&eve, "mot", 0).await;
    second.crash().await;
    let third = disk.start("search.messages = false").await;
    third.crash().await;
    let fourth = disk.start("").await;
    let alice = User { home: &fourth, id: "@alice:a.test".to_owned(), device: String::new(), token };
    count(&alice, "mot", 1).await;
    count(&alice, "autre", 0).await;
}
