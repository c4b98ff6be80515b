//! What is said goes after a while: hidden at once, taken off the disk, and the room goes on, here and elsewhere.

mod elsewhere;
mod lifetimes;
mod media;
mod times;

use std::{sync::Arc, time::Duration};

use chappe_kv::{Batch, Db, Fault, Faulty, Memory};
use chappe_rules::retention::Policy;
use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, UInt, events::TimelineEventType};
use serde_json::{Value, json};
use tokio::time::advance;

use super::net::{ALICE, BOB, CAROL, Net, actor, bodies, history, join, room, say, stored, whole_state};
use crate::{Config, Draft, Error, Rooms};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn keeping(default_days: u32) -> Config {
    let retention = Some(Policy { default_days, minimum_days: 1, maximum_days: 0 });
    Config { retention, ..Config::default() }
}

fn server(net: &Net, name: &str, seed: u8) -> Rooms {
    net.server_with(name, seed, Db::new(Memory::default()), keeping(7))
}

async fn two(net: &Net, version: &str) -> (Rooms, Rooms, OwnedRoomId) {
    let (a, b) = (server(net, "a.example", 1), server(net, "b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "room_version": version })).await;
    join(&b, BOB, &id).await;
    net.deliver().await;
    (a, b, id)
}

/// Carol's server, of which she has joined.
async fn third(net: &Net, id: &RoomId) -> Rooms {
    let c = server(net, "c.example", 3);
    join(&c, CAROL, id).await;
    net.deliver().await;
    c
}

/// What a user reads of a room, the newest first.
async fn seen(rooms: &Rooms, who: &str, id: &RoomId) -> Vec<String> {
    history(rooms, who, id, 3).await
}

fn dated(draft: Draft, at: u64) -> Draft {
    Draft { timestamp: Some(MilliSecondsSinceUnixEpoch(UInt::try_from(at).unwrap())), ..draft }
}

#[tokio::test(start_paused = true)]
async fn what_was_said_goes_and_the_room_goes_on() {
    for version in ["1", "3", "11", "12"] {
        let net = Net::default();
        let (a, b, id) = two(&net, version).await;
        let old = say(&a, ALICE, &id, "old").await;
        net.deliver().await;
        let before = whole_state(&a, &id).await;
        advance(6 * DAY).await;
        say(&b, BOB, &id, "new").await;
        net.deliver().await;
        advance(DAY).await;
        for (rooms, who) in [(&a, ALICE), (&b, BOB)] {
            assert_eq!(seen(rooms, who, &id).await, ["new"], "version {version}: hidden at once");
            assert!(stored(rooms, &id, &old).await.contains("\"old\""));
            let event = rooms.event(&actor(who), &id, &old).await;
            assert!(matches!(event, Err(Error::NotFound(_))));
            assert!(rooms.expire_due().await.unwrap().is_some(), "within the hour, not before");
        }
        advance(HOUR).await;
        for rooms in [&a, &b] {
            rooms.expire_due().await.unwrap();
            let left = stored(rooms, &id, &old).await;
            assert!(!left.contains("\"body\"") && left.contains("prev_events"), "{left}");
            assert_eq!(rooms.expiry_figures().events, 1);
        }
        assert_eq!(whole_state(&a, &id).await, before);
        assert_eq!(bodies(&a, &id).await, ["new"]);

        // Nothing is left to read: not even for who comes later, who still gets the whole graph.
        advance(7 * DAY + HOUR).await;
        a.expire_due().await.unwrap();
        b.expire_due().await.unwrap();
        assert_eq!(bodies(&a, &id).await, Vec::<String>::new());
        let c = third(&net, &id).await;
        assert_eq!(seen(&c, CAROL, &id).await, Vec::<String>::new());
        say(&c, CAROL, &id, "and on").await;
        net.deliver().await;
        say(&a, ALICE, &id, "it goes").await;
        net.deliver().await;
        for (rooms, who) in [(&a, ALICE), (&b, BOB), (&c, CAROL)] {
            assert_eq!(seen(rooms, who, &id).await, ["it goes", "and on"], "version {version}");
            assert_eq!(whole_state(rooms, &id).await, whole_state(&a, &id).await);
        }
    }
}

/// To take away what has expired is nothing that happens in a room.
#[tokio::test(start_paused = true)]
async fn a_room_is_as_quiet_as_before() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    say(&a, ALICE, &id, "old").await;
    let position = async || a.view(&id).await.unwrap().head.position;
    let before = position().await;
    advance(7 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(a.expiry_figures().events, 1);
    assert_eq!(position().await, before);
}

/// Relations go with both ends, and counts are right in between.
#[tokio::test(start_paused = true)]
async fn what_hangs_off_an_event_goes_with_it() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    let root = say(&a, ALICE, &id, "root").await;
    let related = |kind: &str, content: Value| {
        let content = content.as_object().unwrap().clone();
        Draft::message(TimelineEventType::from(kind.to_owned()), content)
    };
    let reply = json!({ "body": "reply", "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    let reply = a.send(&actor(ALICE), &id, related("m.room.message", reply), None).await.unwrap();
    advance(DAY).await;
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": reply, "key": "+" } });
    a.send(&actor(ALICE), &id, related("m.reaction", reaction), None).await.unwrap();
    let second = json!({ "body": "second", "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    a.send(&actor(ALICE), &id, related("m.room.message", second), None).await.unwrap();
    a.send(&actor(ALICE), &id, Draft::redaction(&reply, Some("why")), None).await.unwrap();
    advance(6 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    let view = a.view(&id).await.unwrap();
    assert!(view.reader.threads(view.nid).await.unwrap().is_empty());
    let counts = view.reader.relation_counts(view.nid, &[&root, &reply], &["m.thread", "m.annotation"]).await;
    assert_eq!(counts.unwrap(), [[0, 0], [0, 0]]);
    drop(view);
    assert_eq!(seen(&a, ALICE, &id).await, ["second"]);
    advance(DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(a.expiry_figures().events, 5);
    let view = a.view(&id).await.unwrap();
    let counts = view.reader.relation_counts(view.nid, &[&root, &reply], &["m.thread", "m.annotation"]).await;
    assert_eq!(counts.unwrap(), [[0, 0], [0, 0]]);
}

/// Commits of the purge fail in every way; in the end everything has gone once.
#[tokio::test(start_paused = true)]
async fn a_purge_that_breaks_off_goes_on() {
    for fault in [Fault::Lost, Fault::Unanswered, Fault::Conflict] {
        let net = Net::default();
        let (commits, memory) = (Arc::new(Mutex::new(None::<usize>)), Memory::default());
        let count = commits.clone();
        let plan = move |_: &Batch| {
            let mut left = count.lock();
            let before = (*left)?;
            *left = before.checked_sub(1);
            (before == 0).then_some(fault)
        };
        let db = Db::new(Faulty::new(memory, Arc::new(Mutex::new(plan))));
        let a = net.server_with("a.example", 1, db.clone(), keeping(7));
        let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
        a.expire_due().await.unwrap();
        let said: Vec<OwnedEventId> = {
            let mut said = Vec::new();
            for number in 0..450 {
                said.push(say(&a, ALICE, &id, &format!("old {number}")).await);
            }
            said
        };
        advance(7 * DAY + HOUR).await;
        *commits.lock() = Some(1);
        let broken = a.expire_due().await;
        assert_eq!(broken.is_err(), fault != Fault::Conflict, "{broken:?}");
        // Another process on the same disk.
        let a = net.server_with("a.example", 1, db, keeping(7));
        assert_eq!(a.expire_due().await.unwrap(), None, "nothing is left to do");
        for event in &said {
            assert!(!stored(&a, &id, event).await.contains("\"body\""));
        }
        say(&a, ALICE, &id, "new").await;
        assert_eq!(seen(&a, ALICE, &id).await, ["new"]);
    }
}
