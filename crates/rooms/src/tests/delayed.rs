//! Events that are sent later.

use std::time::Duration;

use chappe_accounts::NewUser;
use ruma::RoomId;
use serde_json::json;

use super::net::{Net, actor, room, state, text, user};
use crate::{Config, Error, Rooms};

const ALICE: &str = "@alice:a.example";
const BOB: &str = "@bob:a.example";

async fn server() -> Rooms {
    server_on(&Net::default()).await
}

async fn server_on(net: &Net) -> Rooms {
    let rooms = net.server("a.example", 1);
    for name in ["alice", "bob"] {
        let new = NewUser { localpart: Some(name.to_owned()), ..NewUser::default() };
        rooms.0.accounts.create_user(new).await.unwrap();
    }
    rooms
}

async fn after(rooms: &Rooms, ms: u64) -> Option<u64> {
    tokio::time::advance(Duration::from_millis(ms)).await;
    rooms.send_due().await.unwrap()
}

async fn topic(rooms: &Rooms, id: &RoomId) -> Option<String> {
    let found = rooms.state_content(&actor(ALICE), id, "m.room.topic".into(), "").await.ok()?;
    let content: serde_json::Value = serde_json::from_str(found.get()).unwrap();
    content["topic"].as_str().map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_is_sent_once_at_its_time() {
    let rooms = server().await;
    let id = room(&rooms, ALICE, json!({})).await;
    let schedule = async |delay: u64| {
        rooms.schedule(&actor(ALICE), &id, text("later"), delay, Some("t".into())).await.unwrap()
    };
    let delayed = schedule(1_000).await;
    assert_eq!(schedule(1_000).await, delayed, "the same transaction");
    assert_eq!(rooms.all_delayed(&user(ALICE)).await.unwrap().len(), 1);
    assert!(rooms.all_delayed(&user(BOB)).await.unwrap().is_empty());
    assert!(matches!(rooms.delayed(&user(BOB), &delayed).await, Err(Error::NotFound(_))));
    assert!(after(&rooms, 999).await.is_some(), "not before its time");
    assert!(after(&rooms, 1).await.is_none());
    assert!(rooms.all_delayed(&user(ALICE)).await.unwrap().is_empty());
    let ended = rooms.delayed(&user(ALICE), &delayed).await.unwrap().end.unwrap();
    let event = ended.event.unwrap();
    assert_eq!(
        rooms.send_delayed(&delayed).await.unwrap(),
        event,
        "sent once, however often it is asked for"
    );
    assert!(matches!(rooms.cancel_delayed(&delayed).await, Err(Error::Ended)));
    assert!(matches!(rooms.restart_delayed(&delayed).await, Err(Error::Ended)));
    let shown = rooms.event(&actor(ALICE), &id, &event).await.unwrap();
    assert!(shown.get().contains(&format!(r#""org.matrix.msc4140.delay_id":"{delayed}""#)), "{shown}");
    assert_eq!(schedule(1_000).await, delayed, "the transaction is remembered");
    tokio::time::advance(Duration::from_hours(25)).await;
    assert_eq!(rooms.sweep().await.unwrap(), 1);
    assert!(rooms.delayed(&user(ALICE), &delayed).await.is_err(), "forgotten after a day");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_is_restarted_cancelled_and_sent_at_once() {
    let rooms = server().await;
    let id = room(&rooms, ALICE, json!({})).await;
    let schedule = async |what: &str| {
        let draft = state("m.room.topic", "", &json!({ "topic": what }));
        rooms.schedule(&actor(ALICE), &id, draft, 1_000, None).await.unwrap()
    };
    let restarted = schedule("restarted").await;
    after(&rooms, 900).await;
    rooms.restart_delayed(&restarted).await.unwrap();
    after(&rooms, 900).await;
    assert_eq!(topic(&rooms, &id).await, None);
    after(&rooms, 100).await;
    assert_eq!(topic(&rooms, &id).await.as_deref(), Some("restarted"));
    let cancelled = schedule("cancelled").await;
    rooms.cancel_delayed(&cancelled).await.unwrap();
    rooms.cancel_delayed(&cancelled).await.unwrap();
    assert!(matches!(rooms.send_delayed(&cancelled).await, Err(Error::Ended)));
    after(&rooms, 2_000).await;
    assert_eq!(topic(&rooms, &id).await.as_deref(), Some("restarted"));
    let at_once = schedule("at once").await;
    let (one, two) = tokio::join!(rooms.send_delayed(&at_once), rooms.send_delayed(&at_once));
    assert!(one.is_ok() || two.is_ok());
    assert_eq!(topic(&rooms, &id).await.as_deref(), Some("at once"));
    for unknown in [rooms.cancel_delayed("x").await, rooms.restart_delayed("x").await] {
        assert!(matches!(unknown, Err(Error::NotFound(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_sent_when_it_is_due_ends_with_an_error() {
    let rooms = server().await;
    let id = room(&rooms, ALICE, json!({ "preset": "public_chat" })).await;
    rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    let draft = state("m.room.topic", "", &json!({ "topic": "mine" }));
    let refused = rooms.schedule(&actor(BOB), &id, draft, 500, None).await.unwrap();
    assert!(matches!(rooms.send_delayed(&refused).await, Err(Error::Forbidden(_))));
    assert!(rooms.delayed(&user(BOB), &refused).await.unwrap().end.is_none(), "it goes on waiting");
    let locked_out = rooms.schedule(&actor(ALICE), &id, text("hi"), 600, None).await.unwrap();
    rooms.0.accounts.update_user(&user(ALICE), |account| account.locked = true).await.unwrap();
    after(&rooms, 1_000).await;
    let error = async |who: &str, id: &str| {
        rooms.delayed(&user(who), id).await.unwrap().end.unwrap().error.unwrap().0
    };
    assert_eq!(error(BOB, &refused).await, "M_FORBIDDEN");
    assert_eq!(error(ALICE, &locked_out).await, "M_FORBIDDEN");
}

#[tokio::test(start_paused = true)]
async fn delays_have_their_limits() {
    let rooms = server().await;
    let id = room(&rooms, ALICE, json!({})).await;
    let schedule =
        async |who: &str, delay: u64| rooms.schedule(&actor(who), &id, text("x"), delay, None).await;
    let config = Config::default();
    assert!(matches!(schedule(ALICE, 0).await, Err(Error::InvalidParam(_))));
    let too_long = config.delayed_events_seconds * 1_000 + 1;
    assert!(matches!(schedule(ALICE, too_long).await, Err(Error::Forbidden(_))));
    assert!(matches!(schedule(BOB, 1).await, Err(Error::Forbidden(_))), "not in the room");
    for _ in 0..config.delayed_events_per_user {
        schedule(ALICE, 5_000).await.unwrap();
    }
    let one_more = schedule(ALICE, 5_000).await;
    assert!(
        matches!(one_more, Err(Error::TooMany { retry_after }) if retry_after == Duration::from_secs(5)),
        "{one_more:?}"
    );
    assert!(after(&rooms, 5_000).await.is_none());
    schedule(ALICE, 5_000).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_worker_wakes_for_what_is_due() {
    let rooms = server().await;
    let id = room(&rooms, ALICE, json!({})).await;
    let world = rooms.0.world.clone();
    let worker = {
        let rooms = rooms.clone();
        world.spawn("delayed events", async move { rooms.run_delayed().await })
    };
    rooms.schedule(&actor(ALICE), &id, text("soon"), 700, None).await.unwrap();
    let sent = async {
        while !rooms.all_delayed(&user(ALICE)).await.unwrap().is_empty() {
            world.sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(world.timeout(Duration::from_secs(2), sent).await.is_some());
    assert!(world.shut_down(Duration::from_secs(1)).await.is_empty());
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_takes_long_holds_up_nobody_else() {
    let net = Net::default();
    let rooms = server_on(&net).await;
    net.silent.lock().insert("silent.example".try_into().unwrap());
    let (alices, bobs) = (room(&rooms, ALICE, json!({})).await, room(&rooms, BOB, json!({})).await);
    for number in 0..20 {
        let alias = json!({ "alias": format!("#{number}:silent.example") });
        let draft = state("m.room.canonical_alias", "", &alias);
        rooms.schedule(&actor(ALICE), &alices, draft, 500, None).await.unwrap();
    }
    rooms.schedule(&actor(BOB), &bobs, text("soon"), 700, None).await.unwrap();
    let world = rooms.0.world.clone();
    let worker = {
        let rooms = rooms.clone();
        world.spawn("delayed events", async move { rooms.run_delayed().await })
    };
    let sent = async {
        while !rooms.all_delayed(&user(BOB)).await.unwrap().is_empty() {
            world.sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(world.timeout(Duration::from_secs(2), sent).await.is_some());
    assert_eq!(rooms.all_delayed(&user(ALICE)).await.unwrap().len(), 20);
    assert!(world.shut_down(Duration::from_secs(1)).await.is_empty());
    drop(worker);
}
