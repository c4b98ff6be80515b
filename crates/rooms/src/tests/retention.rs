//! What is said goes after a while: hidden at once, taken off the disk, and the room goes on, here and elsewhere.

mod media;

use std::{sync::Arc, time::Duration};

use chappe_kv::{Batch, Db, Fault, Faulty, Memory};
use chappe_rules::retention::Policy;
use chappe_store::{EventNum, Tx, rooms::RoomHeads};
use parking_lot::Mutex;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, UInt,
    api::{Direction, client::filter::RoomEventFilter},
    events::TimelineEventType,
    server_name,
};
use serde_json::{Map, Value, json};
use tokio::time::advance;

use super::net::{Net, actor, bodies, room, say, state, text, whole_state};
use crate::{Config, Draft, Error, PageRequest, Rooms};

const ALICE: &str = "@alice:a.example";
const BOB: &str = "@bob:b.example";
const CAROL: &str = "@carol:c.example";
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
    join(net, &b, BOB, &id).await;
    (a, b, id)
}

async fn join(net: &Net, rooms: &Rooms, who: &str, id: &RoomId) {
    rooms.join(&actor(who), id, vec![server_name!("a.example").to_owned()], Map::new()).await.unwrap();
    net.deliver().await;
}

/// The bodies that a user sees, the newest first, to the very end of the history.
async fn seen(rooms: &Rooms, who: &str, id: &RoomId) -> Vec<String> {
    let (filter, mut from, mut seen) = (RoomEventFilter::default(), None::<String>, Vec::new());
    for _ in 0..50 {
        let request = PageRequest {
            from: from.as_deref(),
            to: None,
            direction: Direction::Backward,
            limit: 3,
            filter: &filter,
            relations: None,
        };
        let page = rooms.messages(&actor(who), id, request).await.unwrap();
        for event in page.chunk {
            let event: Value = serde_json::from_str(event.get()).unwrap();
            seen.extend(event["content"]["body"].as_str().map(str::to_owned));
        }
        from = page.end;
        if from.is_none() {
            return seen;
        }
    }
    panic!("the history of {id} has no end");
}

/// What is stored of an event.
async fn stored(rooms: &Rooms, id: &RoomId, event: &EventId) -> String {
    let reader = rooms.store().read();
    let nid = reader.room_nid(id).await.unwrap().unwrap();
    let num = reader.event_num(nid, event).await.unwrap().unwrap();
    reader.pdu(nid, num).await.unwrap().json.to_string()
}

fn dated(draft: Draft, at: u64) -> Draft {
    Draft { timestamp: Some(MilliSecondsSinceUnixEpoch(UInt::try_from(at).unwrap())), ..draft }
}

/// A draft that says something, of a time that has nearly expired.
fn nearly_expired(rooms: &Rooms, draft: Draft) -> Draft {
    dated(draft, rooms.0.world.now() - 7 * DAY_MS + 60_000)
}

async fn keep_for(rooms: &Rooms, who: &str, id: &RoomId, ms: u64) {
    let event = state("m.room.retention", "", &json!({ "max_lifetime": ms }));
    rooms.send(&actor(who), id, event, None).await.unwrap();
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
        let c = server(&net, "c.example", 3);
        join(&net, &c, CAROL, &id).await;
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

/// Whoever missed what has expired meanwhile can follow what comes after it.
#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_finds_no_hole() {
    for version in ["1", "11"] {
        let net = Net::default();
        let (a, b, id) = two(&net, version).await;
        for number in 0..5 {
            say(&a, ALICE, &id, &format!("missed {number}")).await;
        }
        net.lose(&a, "b.example").await;
        advance(7 * DAY + HOUR).await;
        a.expire_due().await.unwrap();
        assert_eq!(a.expiry_figures().events, 5, "the last one as well");
        say(&a, ALICE, &id, "later").await;
        net.deliver().await;
        assert_eq!(seen(&b, BOB, &id).await, ["later"]);
        say(&b, BOB, &id, "answer").await;
        net.deliver().await;
        assert_eq!(seen(&a, ALICE, &id).await, ["answer", "later"]);
        let view = b.view(&id).await.unwrap();
        assert_eq!(view.head.extremities.len(), 1, "version {version}: nothing came loose");
    }
}

/// A server with messages that have expired and others that have not; what is fetched of it is of both kinds.
#[tokio::test(start_paused = true)]
async fn old_history_comes_without_what_it_said() {
    let net = Net::default();
    let a = net.server("a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let old = say(&a, ALICE, &id, "old").await;
    advance(7 * DAY).await;
    let fresh = say(&a, ALICE, &id, "fresh").await;
    let b = server(&net, "b.example", 2);
    join(&net, &b, BOB, &id).await;
    assert!(b.fetch_older(&id, 50).await.unwrap() > 3);
    assert_eq!(seen(&b, BOB, &id).await, ["fresh"]);
    assert_eq!(bodies(&b, &id).await, ["fresh"]);
    assert!(!stored(&b, &id, &old).await.contains("\"body\""), "it was never kept");
    assert!(stored(&b, &id, &fresh).await.contains("fresh"));
    assert_eq!(seen(&a, ALICE, &id).await, ["fresh", "old"], "a plain server keeps everything");
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_is_changed_both_ways() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    for number in 0..8 {
        say(&a, ALICE, &id, &format!("day {number}")).await;
        advance(DAY).await;
    }
    assert_eq!(seen(&a, ALICE, &id).await.len(), 6, "seven days are over for two");
    keep_for(&a, ALICE, &id, 3 * DAY_MS).await;
    assert_eq!(seen(&a, ALICE, &id).await, ["day 7", "day 6"]);
    // Within the hour a mistake can still be put right.
    keep_for(&a, ALICE, &id, 100 * DAY_MS).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await.len(), 8);
    keep_for(&a, ALICE, &id, 3 * DAY_MS).await;
    advance(HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(bodies(&a, &id).await, ["day 6", "day 7"]);
    keep_for(&a, ALICE, &id, 100 * DAY_MS).await;
    advance(HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["day 7", "day 6"], "what is gone does not come back");
    advance(90 * DAY).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await.len(), 2);
    // Less than the server allows is what it allows.
    keep_for(&a, ALICE, &id, 0).await;
    say(&a, ALICE, &id, "today").await;
    assert_eq!(seen(&a, ALICE, &id).await, ["today"]);
    // Nothing is said of it any more: the server's own policy.
    let told = state("m.room.retention", "", &json!({}));
    let told = a.send(&actor(ALICE), &id, told, None).await.unwrap();
    advance(2 * DAY).await;
    assert_eq!(seen(&a, ALICE, &id).await, ["today"]);
    keep_for(&a, ALICE, &id, DAY_MS).await;
    assert!(seen(&a, ALICE, &id).await.is_empty());
    let view = a.view(&id).await.unwrap();
    let now = view.current("m.room.retention".into(), "").await.unwrap().unwrap();
    assert_ne!(now.pdu.event_id(), &*told);
    let now = now.pdu.event_id().to_owned();
    drop(view);
    a.send(&actor(ALICE), &id, Draft::redaction(&now, None), None).await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["today"], "a redacted rule says nothing");
}

#[tokio::test(start_paused = true)]
async fn nobody_gains_by_lying_about_the_time() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    let now = a.0.world.now();
    for (body, at) in [("ahead", now + 3 * DAY_MS), ("behind", now - 8 * DAY_MS)] {
        a.send(&actor(ALICE), &id, dated(text(body), at), None).await.unwrap();
    }
    say(&a, ALICE, &id, "honest").await;
    net.deliver().await;
    for (rooms, who) in [(&a, ALICE), (&b, BOB)] {
        assert_eq!(seen(rooms, who, &id).await, ["honest", "ahead"], "who dates back hurts nobody else");
    }
    advance(7 * DAY + HOUR).await;
    for (rooms, who) in [(&a, ALICE), (&b, BOB)] {
        rooms.expire_due().await.unwrap();
        assert!(seen(rooms, who, &id).await.is_empty());
        assert!(bodies(rooms, &id).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn who_dates_back_does_not_hide_what_others_said_before() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    say(&b, BOB, &id, "kept").await;
    net.deliver().await;
    for number in 0..60 {
        a.send(&actor(ALICE), &id, dated(text(&number.to_string()), 0), None).await.unwrap();
    }
    say(&a, ALICE, &id, "after").await;
    net.deliver().await;
    let c = server(&net, "c.example", 3);
    join(&net, &c, CAROL, &id).await;
    assert_eq!(seen(&c, CAROL, &id).await, ["after", "kept"]);
    assert!(c.view(&id).await.unwrap().open_gaps(..).await.unwrap().is_empty(), "all has come");
}

#[tokio::test(start_paused = true)]
async fn history_does_not_wait_for_what_came_before_it() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    let old = say(&a, ALICE, &id, "old").await;
    advance(6 * DAY).await;
    let c = server(&net, "c.example", 3);
    join(&net, &c, CAROL, &id).await;
    let new = say(&c, CAROL, &id, "new").await;
    assert!(c.fetch_older(&id, 50).await.unwrap() > 0);
    assert_eq!(bodies(&c, &id).await, ["old", "new"]);
    advance(DAY + HOUR).await;
    c.expire_due().await.unwrap();
    assert!(!stored(&c, &id, &old).await.contains("\"body\""));
    assert!(stored(&c, &id, &new).await.contains("\"body\""));
    assert_eq!(c.expiry_figures().events, 1);
    advance(6 * DAY).await;
    assert!(c.expire_due().await.unwrap().is_none());
    assert!(bodies(&c, &id).await.is_empty());
    assert_eq!(c.expiry_figures().events, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_before_an_expired_message_can_still_be_had() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    advance(Duration::from_secs(1)).await;
    let at = MilliSecondsSinceUnixEpoch(UInt::try_from(a.0.world.now()).unwrap());
    // State does not expire, and keeps nothing that came later waiting.
    let kept = json!({ "topic": "kept", "body": "kept" });
    let kept = a.send(&actor(ALICE), &id, state("m.room.topic", "", &kept), None).await.unwrap();
    advance(Duration::from_secs(1)).await;
    let first = nearly_expired(&a, text("first"));
    let first = a.send(&actor(ALICE), &id, first, None).await.unwrap();
    net.deliver().await;
    let c = server(&net, "c.example", 3);
    join(&net, &c, CAROL, &id).await;
    assert_eq!(c.fetch_older(&id, 1).await.unwrap(), 1);
    assert_eq!(bodies(&c, &id).await, ["first"]);
    advance(2 * HOUR).await;
    assert_eq!(c.expire_now(&id).await.unwrap(), 1);
    assert!(!stored(&c, &id, &first).await.contains("\"body\""));
    let found = c.timestamp_to_event(&actor(CAROL), &id, at, Direction::Forward).await.unwrap();
    assert_eq!(found.0, kept, "nearer than what is here");
    assert_eq!(seen(&c, CAROL, &id).await, ["kept"]);
}

/// What lies before something that this server's own users said so long ago is asked for no more.
#[tokio::test(start_paused = true)]
async fn history_that_has_expired_for_certain_is_not_asked_for() {
    let net = Net::default();
    let (_, b, id) = two(&net, "11").await;
    let open = async || b.view(&id).await.unwrap().open_gaps(..).await.unwrap().len();
    assert_eq!(open().await, 1);
    advance(6 * DAY + 23 * HOUR).await;
    assert_eq!(open().await, 1);
    advance(HOUR).await;
    assert_eq!(open().await, 0);
}

/// What a redaction redacts is known after it has expired itself.
#[tokio::test(start_paused = true)]
async fn a_redaction_that_waits_outlives_its_own_expiry() {
    for version in ["1", "3", "11"] {
        let net = Net::default();
        let (a, _, id) = two(&net, version).await;
        let said = say(&a, ALICE, &id, "said").await;
        let c = server(&net, "c.example", 3);
        join(&net, &c, CAROL, &id).await;
        let redaction = nearly_expired(&a, Draft::redaction(&said, Some("the reason")));
        let redaction = a.send(&actor(ALICE), &id, redaction, None).await.unwrap();
        net.deliver().await;
        advance(2 * HOUR).await;
        assert_eq!(c.expire_now(&id).await.unwrap(), 1);
        let left = stored(&c, &id, &redaction).await;
        assert!(!left.contains("the reason") && left.contains(said.as_str()), "version {version}: {left}");
        while c.fetch_older(&id, 50).await.unwrap() > 0 {}
        let view = c.view(&id).await.unwrap();
        let num = view.reader.event_num(view.nid, &said).await.unwrap().unwrap();
        assert!(view.load_one(num).await.unwrap().is_redacted(), "version {version}");
    }
}

/// Neither through another event nor on the way to another server.
#[tokio::test(start_paused = true)]
async fn what_has_expired_is_not_told_by_the_way() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    let said = say(&a, ALICE, &id, "said").await;
    let late = a.send(&actor(ALICE), &id, nearly_expired(&a, text("late")), None).await.unwrap();
    let redaction = nearly_expired(&a, Draft::redaction(&said, Some("the reason")));
    a.send(&actor(ALICE), &id, redaction, None).await.unwrap();
    let redacted = async || a.event(&actor(ALICE), &id, &said).await.unwrap().to_string();
    assert!(redacted().await.contains("the reason"));
    advance(Duration::from_mins(2)).await;
    assert!(stored(&a, &id, &late).await.contains("late"), "it is still on the disk");
    let redacted = redacted().await;
    assert!(redacted.contains("redacted_because") && !redacted.contains("the reason"), "{redacted}");
    net.deliver().await;
    assert!(!stored(&b, &id, &late).await.contains("late"));
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_that_is_redacted_before_it_comes_says_nothing() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    let levels = json!({ "users": { ALICE: 100, BOB: 50 } });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    net.deliver().await;
    let told = state("m.room.retention", "", &json!({ "max_lifetime": DAY_MS }));
    let told = a.send(&actor(ALICE), &id, told, None).await.unwrap();
    b.send(&actor(BOB), &id, Draft::redaction(&told, None), None).await.unwrap();
    net.deliver().await;
    for rooms in [&a, &b] {
        let view = rooms.view(&id).await.unwrap();
        assert!(view.current("m.room.retention".into(), "").await.unwrap().unwrap().is_redacted());
        assert_eq!(view.head.keeping.said.max, None);
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

/// An event of before it was noted when events came that claim to be of a later time.
#[tokio::test(start_paused = true)]
async fn an_old_lie_does_not_keep_the_rest() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    let ahead = a.0.world.now() + 1_000 * DAY_MS;
    let at = Some(MilliSecondsSinceUnixEpoch(UInt::try_from(ahead).unwrap()));
    let lie = a.send(&actor(ALICE), &id, Draft { timestamp: at, ..text("ahead") }, None).await.unwrap();
    let view = a.view(&id).await.unwrap();
    let num = view.reader.event_num(view.nid, &lie).await.unwrap().unwrap();
    let (nid, mut meta) = (view.nid, view.reader.event_meta(view.nid, num).await.unwrap());
    drop(view);
    meta.came = 0;
    let mut tx = Tx::new();
    tx.update_event(nid, num, &meta);
    a.store().commit(tx).await.unwrap();
    say(&a, ALICE, &id, "later").await;
    advance(7 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["ahead"], "from now on it counts");
    advance(7 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert!(bodies(&a, &id).await.is_empty());
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

/// Rooms that nobody writes to any more learn of a new configuration, over a restart, each once.
#[tokio::test(start_paused = true)]
async fn a_new_configuration_reaches_every_room() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let start = |config: Config| net.server_with("a.example", 1, db.clone(), config);
    let a = start(Config::default());
    let mut rooms = Vec::new();
    for number in 0..3 {
        let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
        say(&a, ALICE, &id, "old").await;
        if number == 0 {
            keep_for(&a, ALICE, &id, 200 * DAY_MS).await;
        }
        rooms.push(id);
    }
    advance(100 * DAY).await;
    assert_eq!(a.expire_due().await.unwrap(), None);
    assert_eq!(seen(&a, ALICE, &rooms[1]).await, ["old"]);
    let a = start(keeping(30));
    let next = a.expire_due().await.unwrap();
    assert_eq!(next.map(|next| next > a.0.world.now()), Some(true), "the first room has its own lifetime");
    assert_eq!(a.expiry_figures().events, 2);
    let left = |rooms: Vec<Vec<String>>| rooms.into_iter().map(|bodies| bodies.len()).collect::<Vec<_>>();
    let mut all = Vec::new();
    for id in &rooms {
        all.push(bodies(&a, id).await);
    }
    assert_eq!(left(all), [1, 0, 0]);
    // Switched off and on again: what was said meanwhile is not forgotten to be forgotten.
    let a = start(Config::default());
    a.expire_due().await.unwrap();
    say(&a, ALICE, &rooms[2], "meanwhile").await;
    advance(31 * DAY).await;
    let a = start(keeping(30));
    a.expire_due().await.unwrap();
    assert!(bodies(&a, &rooms[2]).await.is_empty());
}

/// What a room was told of is in its head, which existing rooms get when the store is opened.
#[tokio::test(start_paused = true)]
async fn heads_of_an_older_format_are_brought_up_to_date() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let a = net.server_on("a.example", 1, db.clone());
    let id = room(&a, ALICE, json!({})).await;
    keep_for(&a, ALICE, &id, 5).await;
    let nid = a.number(&id).await.unwrap().unwrap();
    let old = a.store().read().room_head(nid).await.unwrap();
    assert_eq!(old.keeping.said.max, Some(5));
    let mut new = old.clone();
    new.keeping.said.max = None;
    let mut tx = Tx::new();
    tx.replace_head(nid, &old, &new);
    tx.put::<chappe_store::Meta>(&"format".to_owned(), &2_u32.to_be_bytes().to_vec());
    a.store().commit(tx).await.unwrap();
    let store = chappe_store::Store::open(db).await.unwrap();
    let head = store.read().get::<RoomHeads>(&nid).await.unwrap().unwrap();
    assert_eq!((head.keeping.said.max, head.keeping.next), (Some(5), EventNum(1)));
}

#[tokio::test(start_paused = true)]
async fn another_lifetime_holds_at_once() {
    let net = Net::default();
    let a = net.server("a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let old = say(&a, ALICE, &id, "old").await;
    advance(8 * DAY).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["old"]);
    a.reconfigure(keeping(9));
    assert_eq!(seen(&a, ALICE, &id).await, ["old"]);
    a.expire_due().await.unwrap();
    a.reconfigure(keeping(7));
    assert!(seen(&a, ALICE, &id).await.is_empty());
    assert!(stored(&a, &id, &old).await.contains("old"));
    a.reconfigure(Config::default());
    assert_eq!(seen(&a, ALICE, &id).await, ["old"], "put right in time");
    a.reconfigure(keeping(7));
    a.expire_due().await.unwrap();
    assert!(!stored(&a, &id, &old).await.contains("old"));
}

/// What is hidden by a clock that is wrong for a while is shown again: nothing is taken off the disk for an hour.
#[tokio::test(start_paused = true)]
async fn a_clock_that_runs_ahead_takes_nothing_away() {
    let net = Net::default();
    let a = server(&net, "a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let said = say(&a, ALICE, &id, "said").await;
    let is_kept = async || stored(&a, &id, &said).await.contains("\"body\"");
    a.expire_due().await.unwrap();
    a.0.world.set_clock_ahead(30 * DAY);
    assert!(seen(&a, ALICE, &id).await.is_empty(), "hiding follows the clock");
    assert_eq!(a.expire_due().await.unwrap(), None);
    assert!(matches!(a.expire_now(&id).await, Err(Error::BadState(_))));
    assert!(is_kept().await);
    a.0.world.set_clock_ahead(Duration::ZERO);
    advance(HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["said"]);
    // One that was set for good is followed in the end.
    a.0.world.set_clock_ahead(30 * DAY);
    a.expire_due().await.unwrap();
    assert!(is_kept().await);
    advance(HOUR).await;
    a.expire_due().await.unwrap();
    assert!(!is_kept().await);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_runs_ahead_does_not_say_when_rooms_are_looked_at() {
    let net = Net::default();
    let a = server(&net, "a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let due = async || a.view(&id).await.unwrap().head.keeping.due;
    let before = due().await;
    a.0.world.set_clock_ahead(3 * DAY);
    assert_eq!(a.expire_due().await.unwrap(), None);
    assert_eq!(due().await, before);
}
