//! Reads that need other servers.

use chappe_store::{LogEntry, Position, Tx, events::EventMetas};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedRoomId, RoomId, ServerName, UserId, api::Direction,
    events::receipt::ReceiptThread, room_alias_id, server_name,
};
use serde_json::{Value, json};

use super::net::{ALICE, BOB, Net, actor, history, join, room, say, state};
use crate::{Config, Draft, Error, HierarchyRequest, PublicRoomsRequest, RemoteReceipt, Rooms, Visibility};

#[tokio::test]
async fn paging_back_goes_on_into_what_other_servers_have() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    for number in 0..130 {
        say(&a, ALICE, &id, &number.to_string()).await;
    }
    join(&b, BOB, &id).await;
    net.deliver().await;
    say(&b, BOB, &id, "hello").await;
    net.deliver().await;
    let expected: Vec<String> =
        std::iter::once("hello".to_owned()).chain((0..130).rev().map(|n: u32| n.to_string())).collect();
    assert_eq!(history(&b, BOB, &id, 30).await, expected);
    assert_eq!(history(&a, ALICE, &id, 30).await, expected);
}

#[tokio::test]
async fn what_was_missed_comes_where_it_belongs() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    say(&a, ALICE, &id, "before").await;
    net.deliver().await;
    for number in 0..150 {
        say(&a, ALICE, &id, &number.to_string()).await;
    }
    net.lose(&a, "b.example").await;
    say(&a, ALICE, &id, "last").await;
    net.deliver().await;
    say(&a, ALICE, &id, "and on").await;
    net.deliver().await;
    let mut expected = vec!["and on".to_owned(), "last".to_owned()];
    expected.extend((0..150).rev().map(|number| number.to_string()));
    expected.push("before".to_owned());
    assert_eq!(history(&b, BOB, &id, 40).await, expected);
    assert_eq!(history(&b, BOB, &id, 7).await, expected);

    let view = b.view(&id).await.unwrap();
    let rows = view.reader.timeline_forward(view.nid, 1, 1_000).await.unwrap();
    assert!(rows.is_sorted_by_key(|row| row.position), "positions grow along the live timeline");
    for row in rows {
        let place = view.reader.ordinal_after(view.nid, row.position).await.unwrap();
        assert!(place > row.ordinal);
    }
}

#[tokio::test]
async fn what_is_redacted_by_what_was_missed_is_looked_at_anew() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    let secret = say(&a, ALICE, &id, "secret").await;
    net.deliver().await;
    b.reconfigure(Config { missing_events_limit: 50, ..Config::default() });
    a.send(&actor(ALICE), &id, Draft::redaction(&secret, None), None).await.unwrap();
    for number in 0..150 {
        say(&a, ALICE, &id, &number.to_string()).await;
    }
    net.lose(&a, "b.example").await;
    say(&a, ALICE, &id, "last").await;
    net.deliver().await;
    assert!(history(&b, BOB, &id, 40).await.iter().all(|body| body != "secret"));
    let reader = b.store().read();
    let nid = reader.room_nid(&id).await.unwrap().unwrap();
    let num = reader.event_num(nid, &secret).await.unwrap().unwrap();
    let log = reader.log_after(Position(0), 10_000).await.unwrap();
    let is_named = |what: &LogEntry| matches!(what, LogEntry::Purged { room, events } if *room == nid.0 && events.contains(&num.0));
    assert_eq!(log.iter().filter(|entry| is_named(&entry.what)).count(), 1);
}

#[tokio::test]
async fn history_from_before_a_join_stays_hidden_where_it_is_for_members() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let hide = json!({ "history_visibility": "joined" });
    a.send(&actor(ALICE), &id, state("m.room.history_visibility", "", &hide), None).await.unwrap();
    say(&a, ALICE, &id, "secret").await;
    join(&b, BOB, &id).await;
    net.deliver().await;
    say(&a, ALICE, &id, "open").await;
    net.deliver().await;
    assert_eq!(history(&b, BOB, &id, 10).await, ["open"]);
}

#[tokio::test]
async fn aliases_lists_and_trees_cross_servers() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id =
        room(&a, ALICE, json!({ "preset": "public_chat", "room_alias_name": "plan", "name": "Plan" })).await;
    let alias = room_alias_id!("#plan:a.example");
    assert_eq!(b.resolve_alias(alias).await.unwrap().room_id, id);
    let unknown = b.resolve_alias(room_alias_id!("#none:a.example")).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))));
    let lost = b.resolve_alias(room_alias_id!("#x:nowhere.example")).await;
    assert!(matches!(lost, Err(Error::NotFound(_))));

    let own = room(&b, BOB, json!({ "preset": "public_chat" })).await;
    let content = json!({ "alias": alias });
    let stolen = b.send(&actor(BOB), &own, state("m.room.canonical_alias", "", &content), None).await;
    assert!(matches!(stolen, Err(Error::BadAlias(_))));

    a.set_directory_visibility(&actor(ALICE), &id, Visibility::Public).await.unwrap();
    let server = Some("a.example".try_into().unwrap());
    let page = b.public_rooms(&PublicRoomsRequest { server, ..PublicRoomsRequest::default() }).await.unwrap();
    assert_eq!(page.chunk[0].name.as_deref(), Some("Plan"));

    let via = ["a.example".try_into().unwrap()];
    let (summary, _) = b.room_summary(Some(&actor(BOB).user), &id, &via).await.unwrap();
    assert_eq!(summary.name.as_deref(), Some("Plan"));
    let hidden = room(&a, ALICE, json!({ "preset": "private_chat" })).await;
    assert!(matches!(b.room_summary(Some(&actor(BOB).user), &hidden, &via).await, Err(Error::NotFound(_))));

    let mut space = super::net::request(json!({ "preset": "public_chat" }));
    space.creation_content = Some(serde_json::from_value(json!({ "type": "m.space" })).unwrap());
    let space = b.create(&actor(BOB), space).await.unwrap();
    for child in [&id, &hidden] {
        let content = json!({ "via": ["a.example"] });
        b.send(&actor(BOB), &space, state("m.space.child", child.as_str(), &content), None).await.unwrap();
    }
    let request =
        HierarchyRequest { room: &space, from: None, limit: None, max_depth: None, suggested_only: false };
    let page = b.hierarchy(&actor(BOB).user, &request).await.unwrap();
    let rooms: Vec<_> = page.rooms.into_iter().map(|room| room.summary.room_id).collect();
    assert_eq!(rooms, [space, id]);
}

async fn page_of(rooms: &Rooms, space: &RoomId, from: Option<&str>) -> (Vec<OwnedRoomId>, Option<String>) {
    let request =
        HierarchyRequest { room: space, from, limit: Some(30), max_depth: None, suggested_only: false };
    let page = rooms.hierarchy(&actor(BOB).user, &request).await.unwrap();
    (page.rooms.into_iter().map(|room| room.summary.room_id).collect(), page.next_batch)
}

async fn put_in(rooms: &Rooms, who: &str, space: &RoomId, child: &str, content: Value) {
    rooms.send(&actor(who), space, state("m.space.child", child, &content), None).await.unwrap();
}

#[tokio::test]
async fn every_room_of_a_space_is_on_one_page_however_many_servers_are_asked() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    let (outer, inner) = (room(&b, BOB, space.clone()).await, room(&a, ALICE, space).await);
    for number in 0..8 {
        let via = ["x.example", "y.example", "z.example"];
        let content = json!({ "via": via, "order": format!("a{number}") });
        put_in(&b, BOB, &outer, &format!("!gone{number}:x.example"), content).await;
    }
    let mut expected = vec![outer.clone()];
    for number in 0..45 {
        let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
        let content = json!({ "via": ["a.example"], "order": format!("b{number:02}") });
        put_in(&b, BOB, &outer, id.as_str(), content).await;
        expected.push(id);
    }
    put_in(&b, BOB, &outer, inner.as_str(), json!({ "via": ["a.example"], "order": "c" })).await;
    expected.push(inner.clone());
    for number in 0..30 {
        let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
        // Known by what is told of the space alone.
        let content = json!({ "via": ["x.example"], "order": format!("{number:02}") });
        put_in(&a, ALICE, &inner, id.as_str(), content).await;
        expected.push(id);
    }
    let (mut found, mut pages, mut from) = (Vec::new(), 0, None::<String>);
    while pages == 0 || from.is_some() {
        let page = page_of(&b, &outer, from.as_deref()).await;
        assert_eq!(page_of(&b, &outer, from.as_deref()).await.0, page.0, "asked again");
        found.extend(page.0);
        (pages, from) = (pages + 1, page.1);
    }
    assert_eq!(found, expected);
    assert_eq!(pages, 5);
}

#[tokio::test]
async fn of_a_page_that_is_full_nobody_is_asked_for_more() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    let space = room(&b, BOB, space).await;
    let inner = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    put_in(&b, BOB, &space, inner.as_str(), json!({ "via": ["a.example"] })).await;
    net.before.lock().insert("hierarchy", Box::pin(std::future::ready(())));
    let page = async |from: Option<&str>| {
        let request =
            HierarchyRequest { room: &space, from, limit: Some(1), max_depth: None, suggested_only: false };
        let page = b.hierarchy(&actor(BOB).user, &request).await.unwrap();
        (page.rooms.into_iter().map(|room| room.summary.room_id).collect::<Vec<_>>(), page.next_batch)
    };
    let (rooms, token) = page(None).await;
    assert_eq!(rooms, [&*space]);
    assert!(net.before.lock().contains_key("hierarchy"), "nobody was asked yet");
    assert_eq!(page(token.as_deref()).await, (vec![inner], None));
    assert!(!net.before.lock().contains_key("hierarchy"));
}

#[tokio::test]
async fn of_the_rooms_of_a_space_a_server_is_told_those_that_it_may_enter() {
    let net = Net::default();
    let (a, open) = (net.server("a.example", 1), json!({ "preset": "public_chat" }));
    let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    let local = json!({ "preset": "public_chat", "creation_content": { "m.federate": false } });
    let (space, everybodys) = (room(&a, ALICE, space).await, room(&a, ALICE, open.clone()).await);
    let (denying, local) = (room(&a, ALICE, open).await, room(&a, ALICE, local).await);
    let list = json!({ "allow": ["*"], "deny": ["b.example"] });
    a.send(&actor(ALICE), &denying, state("m.room.server_acl", "", &list), None).await.unwrap();
    for (order, child) in [("a", &everybodys), ("b", &denying), ("c", &local)] {
        put_in(&a, ALICE, &space, child.as_str(), json!({ "via": ["a.example"], "order": order })).await;
    }
    let told = async |server: &ServerName| {
        let told = a.hierarchy_for(server, &space, false).await.unwrap();
        let children: Vec<OwnedRoomId> = told.children.into_iter().map(|child| child.room_id).collect();
        (children, told.inaccessible_children)
    };
    let (b, c) = (server_name!("b.example"), server_name!("c.example"));
    assert_eq!(told(b).await, (vec![everybodys.clone()], vec![denying.clone(), local.clone()]));
    assert_eq!(told(c).await, (vec![everybodys, denying.clone()], vec![local.clone()]));
    for hidden in [&denying, &local] {
        let alone = a.hierarchy_for(b, hidden, false).await;
        assert!(matches!(alone, Err(Error::NotFound(_))), "{alone:?}");
    }
    assert!(a.hierarchy_for(c, &denying, false).await.is_ok());
}

#[tokio::test]
async fn another_server_is_told_of_no_rooms_in_what_is_no_space() {
    let net = Net::default();
    let (a, open) = (net.server("a.example", 1), json!({ "preset": "public_chat" }));
    let (parent, child) = (room(&a, ALICE, open.clone()).await, room(&a, ALICE, open).await);
    put_in(&a, ALICE, &parent, child.as_str(), json!({ "via": ["a.example"] })).await;
    let told = a.hierarchy_for(server_name!("b.example"), &parent, false).await.unwrap();
    assert_eq!(told.room.summary.room_id, parent);
    assert!(told.room.children_state.is_empty() && told.children.is_empty(), "{told:?}");
}

#[tokio::test]
async fn other_servers_know_what_happened_before_our_time() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let mut draft = super::net::text("long ago");
    draft.timestamp = Some(MilliSecondsSinceUnixEpoch(1_000u32.into()));
    let old = a.send(&actor(ALICE), &id, draft, None).await.unwrap();
    join(&b, BOB, &id).await;
    let at = MilliSecondsSinceUnixEpoch(2_000u32.into());
    let found = b.timestamp_to_event(&actor(BOB), &id, at, Direction::Backward).await.unwrap();
    assert_eq!(found.0, old);
    let stranger: &ServerName = "c.example".try_into().unwrap();
    assert!(a.timestamp_to_event_for(stranger, &id, at, Direction::Backward).await.is_err());
}

#[tokio::test]
async fn receipts_of_banned_servers_are_not_taken() {
    let net = Net::default();
    let (a, _, id) = net.couple(json!({ "preset": "public_chat" })).await;
    let event = say(&a, ALICE, &id, "x").await;
    let count = async || {
        let view = a.view(&id).await.unwrap();
        view.reader.room_receipts(view.nid).await.unwrap().len()
    };
    let user = actor(BOB).user;
    let receipt = RemoteReceipt { user: &user, event: &event, ts: 5, thread: ReceiptThread::Unthreaded };
    let origin: &ServerName = "b.example".try_into().unwrap();
    let keep_out = json!({ "allow": ["*"], "deny": ["b.example"], "allow_ip_literals": false });
    a.send(&actor(ALICE), &id, state("m.room.server_acl", "", &keep_out), None).await.unwrap();
    a.take_receipts(origin, &id, std::slice::from_ref(&receipt)).await.unwrap();
    assert_eq!(count().await, 0);
    let let_in = json!({ "allow": ["*"] });
    a.send(&actor(ALICE), &id, state("m.room.server_acl", "", &let_in), None).await.unwrap();
    a.take_receipts(origin, &id, &[receipt]).await.unwrap();
    assert_eq!(count().await, 1);
}

#[tokio::test]
async fn a_receipt_that_cannot_be_placed_keeps_back_no_others() {
    fn read<'a>(user: &'a UserId, event: &'a EventId) -> RemoteReceipt<'a> {
        RemoteReceipt { user, event, ts: 5, thread: ReceiptThread::Unthreaded }
    }
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    let (bob, beth) = (actor(BOB).user, actor("@beth:b.example").user);
    join(&b, beth.as_str(), &id).await;
    net.deliver().await;
    let (one, two) = (say(&a, ALICE, &id, "1").await, say(&a, ALICE, &id, "2").await);
    let origin: &ServerName = "b.example".try_into().unwrap();
    a.take_receipts(origin, &id, &[read(&bob, &one)]).await.unwrap();
    let view = a.view(&id).await.unwrap();
    let num = view.reader.event_num(view.nid, &one).await.unwrap().unwrap();
    let mut tx = Tx::new();
    tx.delete::<EventMetas>(&(view.nid, num));
    a.store().commit(tx).await.unwrap();
    a.take_receipts(origin, &id, &[read(&bob, &two), read(&beth, &two)]).await.unwrap();
    let view = a.view(&id).await.unwrap();
    assert_eq!(view.reader.room_receipts(view.nid).await.unwrap().len(), 2);
}
