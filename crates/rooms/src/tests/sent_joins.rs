//! Joins that other servers were sent and that the server stopped over, or that nobody takes back at once.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chappe_kv::{Batch, CommitError, Db, Engine, Fault, Faulty, Memory, Position, Snapshot};
use chappe_store::{Tx, sent_joins::SentJoin};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, server_name};
use serde_json::{Map, json};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, advance, sleep, timeout},
};

use super::net::{
    ALICE, BOB, CAROL, Net, actor, bodies, join, membership, raw, room, say, user, whole_state,
};
use crate::{Change, Error, Outcome, Result, Rooms};

const HOUR: Duration = Duration::from_hours(1);

/// A room of `a` that anybody may enter, and `b` on an engine.
async fn open_room(net: &Net, db: &Db) -> (Rooms, Rooms, OwnedRoomId) {
    let (a, b) = (net.server("a.example", 1), net.server_on("b.example", 2, db.clone()));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    (a, b, id)
}

/// Bob joins through `a`.
async fn try_to_join(b: &Rooms, id: &RoomId) -> Result<()> {
    b.join(&actor(BOB), id, vec![server_name!("a.example").to_owned()], Map::new()).await
}

/// As if Bob had been sent a join through `a` of which nothing came back.
async fn note_join(b: &Rooms, id: &RoomId) {
    let sent = SentJoin { servers: vec![server_name!("a.example").to_owned()], since: 1 };
    let mut tx = Tx::new();
    tx.replace_sent_join(&user(BOB), id, None, &sent);
    b.store().commit(tx).await.unwrap();
}

/// `b` stops as it is, and starts again.
fn restart(net: &Net, b: &Rooms, db: &Db) -> Rooms {
    b.0.world.kill();
    net.server_on("b.example", 2, db.clone())
}

/// Bob joins, and `b` stops when `a` has accepted that and before it hears so. Gives `b` as it starts again.
async fn stop_over_join(net: &Net, b: &Rooms, db: &Db, id: &RoomId) -> Rooms {
    let stopping = b.clone();
    let stops = async move {
        stopping.0.world.kill();
        pending::<()>().await;
    };
    net.before.lock().insert("join_answer", Box::pin(stops));
    let joined = try_to_join(b, id).await;
    assert!(matches!(joined, Err(Error::Unreachable)), "{joined:?}");
    restart(net, b, db)
}

/// Whether Bob is in the room as far as a server knows.
async fn is_in(rooms: &Rooms, id: &RoomId) -> bool {
    rooms.0.seems_joined(id, &user(BOB)).await.unwrap_or_default()
}

async fn is_noted(b: &Rooms, id: &RoomId) -> bool {
    b.store().read().sent_join(&user(BOB), id).await.unwrap().is_some()
}

#[tokio::test]
async fn who_seems_to_be_in_after_a_stop_leaves_and_may_come_again() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    assert!(is_in(&a, &id).await && is_noted(&b, &id).await);
    b.take_back_joins().await.unwrap();
    assert!(!is_in(&a, &id).await && !is_noted(&b, &id).await);
    try_to_join(&b, &id).await.unwrap();
    assert!(is_in(&a, &id).await && is_in(&b, &id).await && !is_noted(&b, &id).await);
}

#[tokio::test]
async fn who_has_come_in_stays_after_a_stop() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    try_to_join(&b, &id).await.unwrap();
    assert!(!is_noted(&b, &id).await);
    let b = restart(&net, &b, &db);
    // Also where another join was sent when this one came in.
    note_join(&b, &id).await;
    net.before.lock().insert("make_leave", Box::pin(async {}));
    b.take_back_joins().await.unwrap();
    assert!(net.before.lock().contains_key("make_leave"), "a leave was asked for");
    assert!(is_in(&a, &id).await && is_in(&b, &id).await && !is_noted(&b, &id).await);
}

#[tokio::test(start_paused = true)]
async fn whichever_commit_of_a_join_is_the_last_both_servers_agree_in_the_end() {
    for fault in [Fault::Lost, Fault::Unanswered] {
        for at in 1.. {
            let mut commits = 0;
            let plan = move |_: &Batch| {
                commits += 1;
                (commits == at).then_some(fault)
            };
            let net = Net::default();
            let db = Db::new(Faulty::new(Memory::default(), Arc::new(Mutex::new(plan))));
            let (a, b, id) = open_room(&net, &db).await;
            let joined = try_to_join(&b, &id).await;
            let b = restart(&net, &b, &db);
            for _ in 0..2 {
                b.take_back_joins().await.unwrap();
                advance(Duration::from_mins(11)).await;
            }
            assert_eq!(is_in(&a, &id).await, is_in(&b, &id).await, "{fault:?} at {at}");
            assert!(!is_noted(&b, &id).await, "{fault:?} at {at}");
            if joined.is_ok() {
                assert!(is_in(&a, &id).await && at > 3, "{fault:?} at {at}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_is_taken_back_once_there_is_a_network_and_somebody_is_there() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    net.close("b.example");
    let running = b.clone();
    drop(b.0.world.spawn("joins", async move { running.run_joins().await }));
    sleep(HOUR).await;
    assert!(is_in(&a, &id).await, "somebody was asked without a network");
    net.down.lock().insert(server_name!("a.example").to_owned());
    net.open("b.example");
    sleep(HOUR).await;
    assert!(is_in(&a, &id).await && is_noted(&b, &id).await);
    net.down.lock().clear();
    let mut commits = a.store().visible();
    while is_in(&a, &id).await {
        timeout(3 * HOUR, commits.changed()).await.expect("it is taken back").unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert!(!is_noted(&b, &id).await);
}

#[tokio::test(start_paused = true)]
async fn a_join_that_nobody_takes_back_is_given_up_after_a_day() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (_a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    net.down.lock().insert(server_name!("a.example").to_owned());
    let running = b.clone();
    drop(b.0.world.spawn("joins", async move { running.run_joins().await }));
    sleep(23 * HOUR).await;
    assert!(is_noted(&b, &id).await);
    sleep(4 * HOUR).await;
    assert!(!is_noted(&b, &id).await);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_for_days_does_not_give_a_join_up_at_once() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    net.down.lock().insert(server_name!("a.example").to_owned());
    sleep(72 * HOUR).await;
    b.take_back_joins().await.unwrap();
    assert!(is_noted(&b, &id).await);
    net.down.lock().clear();
    advance(Duration::from_mins(6)).await;
    b.take_back_joins().await.unwrap();
    assert!(!is_in(&a, &id).await && !is_noted(&b, &id).await);
}

/// Whoever is asked for a leave from now on takes seven seconds over it: nearly as long as it is waited for.
fn slow_down(net: &Net) {
    let next = net.clone();
    let slow = async move {
        slow_down(&next);
        sleep(Duration::from_secs(7)).await;
    };
    net.before.lock().insert("make_leave", Box::pin(slow));
}

/// Twenty servers that are not there.
fn nowhere() -> Vec<OwnedServerName> {
    (0..20).map(|n| ServerName::parse(format!("s{n}.example")).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn joins_at_slow_servers_take_a_minute_of_a_round_and_each_has_its_turn() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    let slow = SentJoin { servers: nowhere(), since: b.0.world.now() };
    let mut tx = Tx::new();
    for n in 0..12 {
        // All of them come before the other one.
        let room = RoomId::parse(format!("!!{n}:s.example")).unwrap();
        tx.replace_sent_join(&user(BOB), &room, None, &slow);
    }
    b.store().commit(tx).await.unwrap();
    slow_down(&net);
    for _ in 0..13 {
        let began = Instant::now();
        b.take_back_joins().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(70), "{:?}", began.elapsed());
        // The first pause is over.
        advance(Duration::from_mins(6)).await;
    }
    assert!(!is_in(&a, &id).await && !is_noted(&b, &id).await);
    assert_eq!(b.store().read().sent_joins().await.unwrap().len(), 12);
}

#[tokio::test(start_paused = true)]
async fn of_many_that_were_sent_a_join_each_is_asked_sooner_or_later() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    let read = b.store().read().sent_join(&user(BOB), &id).await.unwrap().unwrap();
    let servers = [nowhere(), read.servers.clone()].concat();
    // Not given up while this takes.
    let sent = SentJoin { servers, since: read.since + 1_000 * 60 * 60 * 1_000 };
    let mut tx = Tx::new();
    tx.replace_sent_join(&user(BOB), &id, Some(&read), &sent);
    b.store().commit(tx).await.unwrap();
    slow_down(&net);
    for _ in 0..50 {
        b.take_back_joins().await.unwrap();
        advance(2 * HOUR).await;
    }
    assert!(!is_in(&a, &id).await && !is_noted(&b, &id).await);
}

#[tokio::test]
async fn of_a_join_that_all_have_refused_nothing_is_kept() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    *net.twist_template.lock() = Some(Arc::new(|mut event| {
        event["auth_events"] = json!([]);
        event
    }));
    let refused = try_to_join(&b, &id).await;
    assert!(matches!(refused, Err(Error::Peer(_))), "{refused:?}");
    assert!(!is_in(&a, &id).await && !is_noted(&b, &id).await);
}

#[tokio::test(start_paused = true)]
async fn who_was_put_out_since_is_asked_about_as_long_as_a_join_may_be_late() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Ban, None).await.unwrap();
    b.take_back_joins().await.unwrap();
    assert!(is_noted(&b, &id).await);
    advance(Duration::from_mins(11)).await;
    b.take_back_joins().await.unwrap();
    assert!(!is_noted(&b, &id).await);
    assert_eq!(membership(&a, &id, BOB).await, Some("ban"));
}

#[tokio::test(start_paused = true)]
async fn who_tries_again_is_not_put_out_by_what_is_taken_back() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    net.before.lock().insert("join_answer", Box::pin(sleep(Duration::from_mins(1))));
    let round = async {
        sleep(Duration::from_secs(30)).await;
        b.take_back_joins().await
    };
    let (joined, round) = tokio::join!(try_to_join(&b, &id), round);
    joined.and(round).unwrap();
    assert!(is_in(&a, &id).await && is_in(&b, &id).await && !is_noted(&b, &id).await);
}

#[tokio::test(start_paused = true)]
async fn who_tries_again_while_an_earlier_join_is_taken_back_waits_for_that() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    net.before.lock().insert("make_leave", Box::pin(sleep(Duration::from_secs(5))));
    let again = async {
        sleep(Duration::from_secs(1)).await;
        try_to_join(&b, &id).await
    };
    let (round, joined) = tokio::join!(b.take_back_joins(), again);
    joined.and(round).unwrap();
    assert!(is_in(&a, &id).await && is_in(&b, &id).await && !is_noted(&b, &id).await);
}

#[tokio::test(start_paused = true)]
async fn who_enters_a_room_that_came_in_since_waits_for_what_is_taken_back() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let c = net.server("c.example", 3);
    join(&c, CAROL, &id).await;
    net.deliver().await;
    let b = stop_over_join(&net, &b, &db, &id).await;
    // The server through which the room comes in has not heard of Bob.
    net.lose(&a, "c.example").await;
    let through = vec![server_name!("c.example").to_owned()];
    b.join(&actor("@bert:b.example"), &id, through, Map::new()).await.unwrap();
    net.deliver().await;
    assert!(is_in(&a, &id).await && !is_in(&b, &id).await && is_noted(&b, &id).await);
    net.before.lock().insert("make_leave", Box::pin(sleep(Duration::from_secs(5))));
    // Of two memberships of the same time either may be the later one.
    net.before.lock().insert("keys", Box::pin(sleep(Duration::from_secs(1))));
    let again = async {
        sleep(Duration::from_secs(1)).await;
        try_to_join(&b, &id).await
    };
    let (round, joined) = tokio::join!(b.take_back_joins(), again);
    joined.and(round).unwrap();
    assert!(net.before.lock().is_empty(), "a leave was made and checked");
    net.deliver().await;
    assert!(is_in(&a, &id).await && is_in(&b, &id).await && !is_noted(&b, &id).await);
}

/// An engine that commits in order, whether or not anybody waits, and takes an hour over the commit by which Bob comes in.
#[derive(Default)]
struct Slow {
    inner: Arc<Memory>,
    order: Arc<tokio::sync::Mutex<()>>,
    has_waited: AtomicBool,
}

#[expect(clippy::disallowed_methods, reason = "an engine has no world")]
fn by_itself<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

#[async_trait]
impl Engine for Slow {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        self.inner.snapshot()
    }

    async fn commit(&self, batch: Batch) -> std::result::Result<Position, CommitError> {
        let is_bobs = |key: &[u8]| key.windows(BOB.len()).any(|part| part == BOB.as_bytes());
        let forgets =
            |change: &chappe_kv::Change| matches!(change, chappe_kv::Change::Delete(key) if is_bobs(key));
        let is_slow = batch.changes.iter().any(forgets) && !self.has_waited.swap(true, Ordering::Relaxed);
        let (inner, order) = (self.inner.clone(), self.order.clone());
        let work = async move {
            let _turn = order.lock().await;
            if is_slow {
                sleep(HOUR).await;
            }
            inner.commit(batch).await
        };
        by_itself(work).await.unwrap()
    }

    fn visible(&self) -> watch::Receiver<Position> {
        self.inner.visible()
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_last_commit_takes_longer_than_the_join_may_is_not_taken_back() {
    let (net, db) = (Net::default(), Db::new(Slow::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let joined = try_to_join(&b, &id).await;
    assert!(matches!(joined, Err(Error::Unreachable)), "{joined:?}");
    assert!(is_in(&a, &id).await && !is_in(&b, &id).await && is_noted(&b, &id).await);
    sleep(2 * HOUR).await;
    assert!(is_in(&a, &id).await && is_in(&b, &id).await && !is_noted(&b, &id).await);
}

#[tokio::test(start_paused = true)]
async fn who_holds_an_invite_decides_what_becomes_of_a_join() {
    for accepts in [true, false] {
        let (net, db) = (Net::default(), Db::new(Memory::default()));
        let (a, b, _) = open_room(&net, &db).await;
        let id = room(&a, ALICE, json!({})).await;
        a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
        let b = stop_over_join(&net, &b, &db, &id).await;
        b.take_back_joins().await.unwrap();
        assert!(is_in(&a, &id).await && is_noted(&b, &id).await);
        if accepts {
            try_to_join(&b, &id).await.unwrap();
        } else {
            b.leave(&actor(BOB), &id, None).await.unwrap();
        }
        advance(Duration::from_mins(11)).await;
        b.take_back_joins().await.unwrap();
        assert_eq!((is_in(&a, &id).await, is_in(&b, &id).await), (accepts, accepts));
        assert!(!is_noted(&b, &id).await);
    }
}

#[tokio::test]
async fn an_invite_that_comes_after_a_join_is_not_turned_down_with_it() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    // The room itself says here who is invited.
    join(&b, "@bert:b.example", &id).await;
    net.deliver().await;
    note_join(&b, &id).await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    net.deliver().await;
    assert_eq!(membership(&b, &id, BOB).await, Some("invite"));
    b.take_back_joins().await.unwrap();
    assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
    b.join(&actor(BOB), &id, Vec::new(), Map::new()).await.unwrap();
    assert!(!is_noted(&b, &id).await);
}

#[tokio::test]
async fn a_knock_that_comes_after_a_join_is_not_taken_back_with_it() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let id = room(&a, ALICE, json!({ "initial_state": [rule] })).await;
    note_join(&b, &id).await;
    b.knock(&actor(BOB), &id, vec![server_name!("a.example").to_owned()], None).await.unwrap();
    b.take_back_joins().await.unwrap();
    assert_eq!(membership(&a, &id, BOB).await, Some("knock"));
    assert!(is_noted(&b, &id).await);
}

#[tokio::test]
async fn what_arrives_before_a_room_has_come_in_is_taken_once_it_has() {
    for is_invited in [false, true] {
        let (net, db) = (Net::default(), Db::new(Memory::default()));
        let (a, b, id) = open_room(&net, &db).await;
        if is_invited {
            a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
        }
        let early = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let (from, to, at, told) = (a.clone(), b.clone(), id.clone(), early.clone());
        let happens = async move {
            let said = say(&from, ALICE, &at, "welcome").await;
            from.change(&actor(ALICE), &at, &user(BOB), Change::Ban, None).await.unwrap();
            let ban = whole_state(&from, &at).await[&("m.room.member".to_owned(), BOB.to_owned())].clone();
            let pdus = vec![raw(&from, &at, &said).await, raw(&from, &at, &ban).await];
            let outcomes = to.receive(server_name!("a.example"), pdus.clone()).await;
            *told.lock() = (pdus, outcomes);
        };
        net.before.lock().insert("join_answer", Box::pin(happens));
        try_to_join(&b, &id).await.unwrap();
        let (pdus, outcomes) = std::mem::take(&mut *early.lock());
        let waits = |outcome: &Outcome| {
            outcome.event_id.is_none() && matches!(outcome.result, Err(Error::Unreachable))
        };
        assert!(outcomes.len() == 2 && outcomes.iter().all(waits), "{outcomes:?}");
        assert!(is_in(&b, &id).await);
        let outcomes = b.receive(server_name!("a.example"), pdus).await;
        assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
        assert_eq!((membership(&b, &id, BOB).await, bodies(&b, &id).await.len()), (Some("ban"), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_before_a_join_comes_to_nothing_waits_no_longer_than_that() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let (a, b, id) = open_room(&net, &db).await;
    let early = Arc::new(Mutex::new(None));
    let (from, to, at, told, wires) = (a.clone(), b.clone(), id.clone(), early.clone(), net.clone());
    let happens = async move {
        let said = say(&from, ALICE, &at, "welcome").await;
        let pdu = raw(&from, &at, &said).await;
        let result = to.receive(server_name!("a.example"), vec![pdu.clone()]).await.remove(0).result;
        wires.down.lock().insert(server_name!("a.example").to_owned());
        *told.lock() = Some((pdu, result));
    };
    net.before.lock().insert("join_answer", Box::pin(happens));
    assert!(matches!(try_to_join(&b, &id).await, Err(Error::Unreachable)));
    let (pdu, result) = early.lock().take().unwrap();
    assert!(matches!(result, Err(Error::Unreachable)), "{result:?}");
    sleep(Duration::from_mins(1)).await;
    assert!(is_noted(&b, &id).await, "it is still to be taken back");
    let result = b.receive(server_name!("a.example"), vec![pdu]).await.remove(0).result;
    assert!(matches!(result, Err(Error::NotFound("room"))), "{result:?}");
}
