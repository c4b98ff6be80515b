//! Who tells what a room was like before its join, and what becomes of an invite meanwhile.

use std::{sync::Arc, time::Duration};

use chappe_kv::{Db, Memory};
use chappe_store::Status;
use ruma::{RoomId, server_name};
use serde_json::Map;
use tokio::time::timeout;

use super::{
    super::net::{ALICE, BOB, CAROL, Net, actor, membership, raw, say, status, user, whole_state},
    BERT, at, complete, is_partial, joined, prepared, three,
};
use crate::{Change, Config, JoinAnswer, Rooms};

const ZOE: &str = "@zoe:a.example";

/// Alice says two things, then Zoe comes.
async fn zoe_comes(a: &Rooms, id: &RoomId) {
    for body in ["one", "two"] {
        say(a, ALICE, id, body).await;
    }
    a.join(&actor(ZOE), id, Vec::new(), Map::new()).await.unwrap();
}

/// Events before the join that are looked for meanwhile come with a state of their own.
#[tokio::test(start_paused = true)]
async fn what_one_server_tells_of_the_time_before_the_join_is_not_the_state_of_the_room() {
    let net = Net::default();
    let (a, _, id) = prepared(&net).await;
    a.change(&actor(ALICE), &id, &user(BERT), Change::Ban, None).await.unwrap();
    for body in ["one", "two"] {
        say(&a, ALICE, &id, body).await;
    }
    net.deliver().await;
    let ban = at(&whole_state(&a, &id).await, "m.room.member", BERT);
    let config = Config { backfill_servers: 1, ..Config::default() };
    let c = net.server_with("c.example", 3, Db::new(Memory::default()), config);
    joined(&net, &c, &id).await;
    let evil = server_name!("b.example").to_owned();
    net.untold.lock().insert((evil.clone(), ban));
    net.silent.lock().remove(&evil);
    net.down.lock().insert(server_name!("a.example").to_owned());
    assert_eq!(c.fetch_older(&id, 1).await.unwrap(), 1, "the last event before the join");
    assert!(is_partial(&c, &id).await);
    net.down.lock().clear();
    complete(&net, &c, &id).await;
    assert_eq!(membership(&c, &id, BERT).await, Some("ban"));
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

/// `b` gives what Alice said just before Zoe came, and tells all of the state before that but the rule by which she may come.
#[tokio::test(start_paused = true)]
async fn what_one_server_tells_meanwhile_has_no_event_of_others_refused_for_good() {
    let net = Net::default();
    let (a, _, id) = prepared(&net).await;
    let last = say(&a, ALICE, &id, "before").await;
    net.deliver().await;
    let c = net.server("c.example", 3);
    joined(&net, &c, &id).await;
    zoe_comes(&a, &id).await;
    net.lose(&a, "c.example").await;
    net.deliver().await;
    let state = whole_state(&a, &id).await;
    let (came, rule) = (at(&state, "m.room.member", ZOE), at(&state, "m.room.join_rules", ""));
    let evil = server_name!("b.example").to_owned();
    // Nor does it help to make the room whole.
    net.untold.lock().extend([rule, last].map(|event| (evil.clone(), event)));
    net.silent.lock().remove(&evil);
    c.reconfigure(Config { missing_events_batch: 1, missing_events_limit: 1, ..Config::default() });
    let event = raw(&a, &id, &came).await;
    // Whether it is believed at once is no matter.
    let _ = c.receive(&evil, vec![event.clone()]).await;
    assert!(is_partial(&c, &id).await);
    complete(&net, &c, &id).await;
    c.receive(server_name!("a.example"), vec![event]).await.remove(0).result.unwrap();
    assert_eq!(status(&c, &id, &came).await, Status::Accepted);
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

/// The same of what was before the join.
#[tokio::test(start_paused = true)]
async fn what_one_server_tells_of_old_events_meanwhile_has_none_of_them_refused_for_good() {
    let net = Net::default();
    let (a, _, id) = prepared(&net).await;
    zoe_comes(&a, &id).await;
    let last = say(&a, ALICE, &id, "before").await;
    net.deliver().await;
    let rule = at(&whole_state(&a, &id).await, "m.room.join_rules", "");
    let config = Config { backfill_servers: 1, ..Config::default() };
    let c = net.server_with("c.example", 3, Db::new(Memory::default()), config);
    joined(&net, &c, &id).await;
    let evil = server_name!("b.example").to_owned();
    net.untold.lock().extend([rule, last].map(|event| (evil.clone(), event)));
    net.silent.lock().remove(&evil);
    net.down.lock().insert(server_name!("a.example").to_owned());
    assert!(c.fetch_older(&id, 3).await.unwrap() > 0);
    assert!(is_partial(&c, &id).await);
    net.down.lock().clear();
    complete(&net, &c, &id).await;
    assert_eq!(membership(&c, &id, ZOE).await, Some("join"));
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

/// Whoever tells it may not know the join yet.
#[tokio::test(start_paused = true)]
async fn the_state_before_the_join_is_what_the_events_before_it_come_to() {
    let net = Net::default();
    let (a, b, id) = prepared(&net).await;
    a.change(&actor(ALICE), &id, &user(BERT), Change::Ban, None).await.unwrap();
    say(&b, BOB, &id, "meanwhile").await;
    net.deliver().await;
    let c = net.server("c.example", 3);
    joined(&net, &c, &id).await;
    let view = c.view(&id).await.unwrap();
    let partial = c.store().read().partial_room(view.nid).await.unwrap().unwrap();
    assert_eq!(partial.prev.len(), 2);
    drop(view);
    let join = at(&whole_state(&a, &id).await, "m.room.member", CAROL);
    net.untold.lock().insert((server_name!("a.example").to_owned(), join.clone()));
    net.untold.lock().insert((server_name!("b.example").to_owned(), join));
    complete(&net, &c, &id).await;
    assert_eq!(membership(&c, &id, BERT).await, Some("ban"));
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

#[tokio::test(start_paused = true)]
async fn other_servers_are_asked_each_time() {
    let net = Net::default();
    let twist = |mut answer: JoinAnswer| {
        let servers = answer.servers_in_room.as_mut().unwrap();
        servers.extend((10..60).map(|number| format!("a{number}.example")));
        answer
    };
    *net.twist.lock() = Some(Arc::new(twist));
    let ([.., c], id) = three(&net).await;
    net.silent.lock().clear();
    net.down.lock().insert(server_name!("a.example").to_owned());
    let mut rounds = 0;
    while c.0.try_complete(&id).await.is_err() {
        rounds += 1;
        assert!(rounds < 100, "b.example is never asked");
    }
    assert!(!is_partial(&c, &id).await);
}

#[tokio::test(start_paused = true)]
async fn an_invite_that_was_turned_down_meanwhile_does_not_come_back() {
    const DAN: &str = "@dan:c.example";
    let net = Net::default();
    let (a, _, id) = prepared(&net).await;
    let c = net.server("c.example", 3);
    a.change(&actor(ALICE), &id, &user(DAN), Change::Invite, None).await.unwrap();
    net.deliver().await;
    joined(&net, &c, &id).await;
    c.leave(&actor(DAN), &id, None).await.unwrap();
    let mut commits = c.store().visible();
    while membership(&c, &id, DAN).await != Some("leave") {
        timeout(Duration::from_mins(1), commits.changed()).await.unwrap().unwrap();
    }
    net.deliver().await;
    assert_eq!(membership(&a, &id, DAN).await, Some("leave"));
    complete(&net, &c, &id).await;
    assert_eq!(membership(&c, &id, DAN).await, Some("leave"));
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}
