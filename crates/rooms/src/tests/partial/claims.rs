//! Servers that are only said to be in a room: what it costs to ask about them, and for how long they are believed.

use std::{sync::Arc, task::Poll, time::Duration};

use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_store::{LogEntry, Position, StateChange, state::StateKey};
use ruma::{RoomId, owned_server_name, server_name};
use serde_json::json;
use tokio::time::sleep;

use super::{
    super::net::{BOB, CAROL, Net, actor, say, whole_state},
    at, complete, is_partial, joined, prepared, servers, three,
};
use crate::{
    JoinAnswer, Rooms,
    desk::Desk,
    testing::{self, Town},
};

/// Whoever is asked about a join says that somebody of ghost.example is in the room.
fn with_ghost(net: &Net) {
    let twist = |mut answer: JoinAnswer| {
        answer.servers_in_room.as_mut().unwrap().push("ghost.example".to_owned());
        answer
    };
    *net.twist.lock() = Some(Arc::new(twist));
}

async fn waiting_for_ghost(rooms: &Rooms) -> usize {
    rooms.store().read().outbox(&owned_server_name!("ghost.example"), 100).await.unwrap().len()
}

async fn counts(rooms: &Rooms, id: &RoomId) -> Vec<(String, u32)> {
    let view = rooms.view(id).await.unwrap();
    let servers = view.reader.room_servers(view.nid).await.unwrap();
    servers.into_iter().map(|(server, count)| (server.to_string(), count)).collect()
}

#[tokio::test(start_paused = true)]
async fn whether_this_server_is_in_a_room_is_known_without_reading_who_else_is_said_to_be() {
    let (net, trips) = (Net::default(), Arc::new(RoundTrips::default()));
    let (_, _, id) = prepared(&net).await;
    let c = net.server_on("c.example", 3, Db::new(Counting::new(Memory::default(), trips.clone())));
    joined(&net, &c, &id).await;
    let desk = Desk::open(&c.0, &id).await.unwrap();
    trips.take();
    assert!(desk.is_here().await.unwrap());
    assert_eq!(trips.take(), (1, 0, 0), "its own users are counted");
}

#[tokio::test]
async fn whether_this_server_is_in_a_large_room_is_one_look_up() {
    let (town, anna) = (Town::new(), testing::actor("anna"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    for number in 0..100 {
        town.join(&testing::actor(&format!("user{number}")), &room).await;
    }
    let desk = Desk::open(&town.rooms.0, &room).await.unwrap();
    town.trips.take();
    assert!(desk.is_here().await.unwrap());
    assert_eq!(town.trips.take(), (1, 0, 0));
    assert!(!desk.has("there.fr".try_into().unwrap()).await.unwrap());
}

/// A server of which nobody spoke was told of no devices, whether or not this one stopped while the members came in.
#[tokio::test(start_paused = true)]
async fn servers_that_did_not_seem_to_be_in_a_room_are_named_when_it_is_whole() {
    for is_begun in [false, true] {
        let net = Net::default();
        let twist = |mut answer: JoinAnswer| {
            answer.servers_in_room.as_mut().unwrap().retain(|server| server != "b.example");
            answer
        };
        *net.twist.lock() = Some(Arc::new(twist));
        let ([a, _, c], id) = three(&net).await;
        assert_eq!(servers(&c, &id).await, ["a.example", "c.example"]);
        let nid = c.view(&id).await.unwrap().nid;
        let partial = c.store().read().partial_room(nid).await.unwrap().unwrap();
        net.silent.lock().clear();
        c.0.fetch_state_before(server_name!("a.example"), &id, &partial).await.unwrap();
        if is_begun {
            let bob = at(&whole_state(&a, &id).await, "m.room.member", BOB);
            let mut desk = Desk::open(&c.0, &id).await.unwrap();
            let num = desk.nums(&[bob]).await.unwrap()[0].unwrap();
            let key = StateKey::new("m.room.member", BOB);
            desk.change_current(&[StateChange { key, num }]).await.unwrap();
            c.store().commit(desk.seal()).await.unwrap();
        }
        c.0.make_whole(&id, &partial).await.unwrap();
        let log = c.store().read().log_after(Position(0), 10_000).await.unwrap();
        let named = log.into_iter().find_map(|entry| match entry.what {
            LogEntry::Whole { servers, .. } => Some(servers),
            _ => None,
        });
        assert_eq!(named.unwrap(), [owned_server_name!("b.example")], "{is_begun}");
    }
}

/// The state stays as it is while those who were said to be in the room go.
#[tokio::test(start_paused = true)]
async fn who_reads_a_room_as_it_was_does_not_bring_its_servers_back() {
    let net = Net::default();
    let ([.., c], id) = three(&net).await;
    c.leave(&actor(CAROL), &id, None).await.unwrap();
    let before = Desk::open(&c.0, &id).await.unwrap();
    c.0.try_complete(&id).await.unwrap();
    let now = Desk::open(&c.0, &id).await.unwrap();
    assert_eq!(before.head.state, now.head.state);
    assert_eq!(before.servers().await.unwrap().len(), 2);
    assert!(now.servers().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_only_said_to_be_in_a_room_is_sent_nothing_more_after_some_hours() {
    let net = Net::default();
    with_ghost(&net);
    let ([a, b, c], id) = three(&net).await;
    assert_eq!(servers(&c, &id).await, ["a.example", "b.example", "c.example", "ghost.example"]);
    say(&b, BOB, &id, "from b").await;
    net.deliver().await;
    sleep(Duration::from_hours(5)).await;
    say(&c, CAROL, &id, "early").await;
    net.deliver().await;
    let waiting = waiting_for_ghost(&c).await;
    assert!(waiting > 0);
    sleep(Duration::from_hours(2)).await;
    assert!(is_partial(&c, &id).await);
    assert_eq!(servers(&c, &id).await, ["a.example", "b.example", "c.example"]);
    say(&c, CAROL, &id, "late").await;
    net.deliver().await;
    assert_eq!(waiting_for_ghost(&c).await, waiting);
    complete(&net, &c, &id).await;
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
    assert_eq!(counts(&c, &id).await, counts(&a, &id).await);
}

/// This server was cut off for hours, and who let the user in is gone for good.
#[tokio::test(start_paused = true)]
async fn who_is_not_believed_to_be_in_a_room_any_more_may_still_tell_its_members() {
    let net = Net::default();
    let ([_, b, c], id) = three(&net).await;
    sleep(Duration::from_hours(7)).await;
    assert_eq!(servers(&c, &id).await, ["a.example", "c.example"]);
    net.down.lock().insert(owned_server_name!("a.example"));
    complete(&net, &c, &id).await;
    assert_eq!(whole_state(&c, &id).await, whole_state(&b, &id).await);
    assert_eq!(counts(&c, &id).await, counts(&b, &id).await);
}

#[tokio::test(start_paused = true)]
async fn members_are_fetched_again_where_the_work_broke_down() {
    let net = Net::default();
    let ([.., c], id) = three(&net).await;
    let defect = std::future::poll_fn(|_| -> Poll<()> { panic!("as a defect would") });
    net.before.lock().insert("keys", Box::pin(defect));
    net.silent.lock().clear();
    while !net.before.lock().is_empty() {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(is_partial(&c, &id).await);
    c.joined_members(&actor(CAROL), &id).await.unwrap();
    assert!(!is_partial(&c, &id).await);
}
