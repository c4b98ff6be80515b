//! Removing rooms whole, and their coming back.

use std::collections::BTreeSet;

use chappe_accounts::{NewUser, Scope};
use chappe_kv::{Db, Direction, Memory, Range};
use chappe_rules::retention::Policy;
use chappe_store::{
    OutboxItem, RoomNid, Tx,
    members::OpenRooms,
    notices::NoticeRooms,
    registry,
    rooms::{DoomedRooms, RoomNames},
    services::ServiceDirectory,
    thread_subscriptions::ThreadSubscription,
};
use ruma::{
    EventId, RoomId, ServerName, events::TimelineEventType, room_version_rules::RoomVersionRules, server_name,
};
use serde_json::{Map, json, value::RawValue};

use super::{
    malformed::{parsed, signed_in},
    net::{ALICE, BOB, CAROL, Net, actor, bodies, join, membership, room, say, text, user},
};
use crate::{Config, Draft, Error, Force, Rooms};

const STRANGER: &str = "@stranger:a.example";

/// A room of another server, with history purged and then everything, is joined again as if it had never been here.
#[tokio::test]
async fn a_removed_room_can_come_back_and_not_before_all_of_it_is_gone() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    net.deliver().await;
    let old = say(&a, ALICE, &id, "old").await;
    let new = say(&a, ALICE, &id, "new").await;
    net.deliver().await;
    let (first, up_to) = (b.first_place(&id).await.unwrap(), b.place_of(&id, &new).await.unwrap());
    assert_eq!(b.purge_some(&id, first, up_to, false).await.unwrap(), (None, 1));
    let redaction = a.send(&actor(ALICE), &id, Draft::redaction(&old, None), None).await.unwrap();
    net.deliver().await;
    b.visible_to_user(&user(BOB), &id, &redaction)
        .await
        .expect("clients may still have what was purged here");

    let nid = b.number(&id).await.unwrap().unwrap();
    let in_use = b.purge(&id, nid, Force::No).await;
    assert!(matches!(in_use, Err(Error::BadState(_))), "{in_use:?}");
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    b.purge(&id, nid, Force::No).await.unwrap();
    for event in [&old, &new] {
        assert_eq!(b.0.store.read().event_address(event).await.unwrap(), None);
    }

    let doom = async |doomed: bool| {
        let mut tx = Tx::new();
        if doomed {
            tx.put::<DoomedRooms>(&id, &nid);
        } else {
            tx.delete::<DoomedRooms>(&id);
        }
        b.0.store.commit(tx).await.unwrap();
    };
    doom(true).await;
    let via = vec![server_name!("a.example").to_owned()];
    let too_early = b.join(&actor(BOB), &id, via, Map::new()).await;
    assert!(matches!(too_early, Err(Error::Retry)), "{too_early:?}");
    doom(false).await;
    join(&b, BOB, &id).await;
    net.deliver().await;
    say(&a, ALICE, &id, "again").await;
    net.deliver().await;
    assert_ne!(b.number(&id).await.unwrap().unwrap(), nid);
    assert_eq!(membership(&b, &id, ALICE).await, Some("join"));
    assert_eq!(bodies(&b, &id).await.last().map(String::as_str), Some("again"));
}

#[tokio::test(start_paused = true)]
async fn history_is_not_purged_before_the_members_of_the_room_are_here() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "room_version": "11" })).await;
    *net.partial_joins.lock() = true;
    net.silent.lock().insert(server_name!("a.example").to_owned());
    join(&b, BOB, &id).await;
    net.deliver().await;
    say(&a, ALICE, &id, "old").await;
    let new = say(&a, ALICE, &id, "new").await;
    net.deliver().await;
    let (first, up_to) = (b.first_place(&id).await.unwrap(), b.place_of(&id, &new).await.unwrap());
    let early = b.purge_some(&id, first, up_to, true).await;
    assert!(matches!(early, Err(Error::BadState(_))), "{early:?}");
    net.silent.lock().clear();
    b.0.try_complete(&id).await.unwrap();
    assert!(!b.view(&id).await.unwrap().head.partial);
    assert_eq!(bodies(&b, &id).await, ["old", "new"]);
    assert_eq!(b.purge_some(&id, first, up_to, true).await.unwrap(), (None, 1));
    assert_eq!(bodies(&b, &id).await, ["new"]);
}

/// What is kept as text for a server.
async fn kept_for(rooms: &Rooms, server: &ServerName) -> Vec<String> {
    let rows = rooms.store().read().outbox(server, 100).await.unwrap();
    let text = |(_, item)| if let OutboxItem::Event(json) = item { Some(json) } else { None };
    rows.into_iter().filter_map(text).collect()
}

#[tokio::test]
async fn what_waits_for_other_servers_needs_no_room() {
    let net = Net::default();
    let (a, _b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    net.deliver().await;
    say(&a, ALICE, &id, "the last word").await;
    a.leave(&actor(ALICE), &id, None).await.unwrap();
    let nid = a.number(&id).await.unwrap().unwrap();
    a.purge(&id, nid, Force::No).await.unwrap();
    let kept = kept_for(&a, server_name!("b.example")).await;
    for part in ["the last word", r#""membership":"leave""#] {
        assert!(kept.iter().any(|json| json.contains(part)), "{part} of {kept:?}");
    }
}

/// As after hours in which nobody tells who is in the room: of a server nobody is known.
async fn doubt(rooms: &Rooms, nid: RoomNid, server: &ServerName) {
    let mut partial = rooms.store().read().partial_room(nid).await.unwrap().unwrap();
    partial.servers.retain(|said| said != server);
    let mut tx = Tx::new();
    tx.doubt_partial(nid, partial, Vec::new(), vec![server.to_owned()]);
    rooms.store().commit(tx).await.unwrap();
    let counts = rooms.store().read().room_servers(nid).await.unwrap();
    assert!(counts.iter().all(|(said, _)| said != server));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_servers_whose_members_are_not_here_yet_needs_no_room() {
    for is_doubted in [false, true] {
        keep_for_unknown_members(is_doubted).await;
    }
}

async fn keep_for_unknown_members(is_doubted: bool) {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    // Of a room without a name some members come with the join: its heroes.
    let body = json!({ "preset": "public_chat", "name": "Salon", "room_version": "11" });
    let id = room(&a, ALICE, body).await;
    join(&c, CAROL, &id).await;
    net.deliver().await;
    *net.partial_joins.lock() = true;
    net.silent.lock().extend([&a, &c].map(|rooms| rooms.server().to_owned()));
    join(&b, BOB, &id).await;
    net.deliver().await;
    assert_eq!(membership(&b, &id, CAROL).await, None);
    b.leave(&actor(BOB), &id, None).await.unwrap();
    let nid = b.number(&id).await.unwrap().unwrap();
    let there = server_name!("c.example");
    if is_doubted {
        doubt(&b, nid, there).await;
    }
    b.purge(&id, nid, Force::No).await.unwrap();
    let kept = kept_for(&b, there).await;
    assert!(kept.iter().any(|json| json.contains(r#""membership":"leave""#)), "{is_doubted}: {kept:?}");
}

/// Tables that may name a room that was removed: that there was such a number, what users are still to be told, and the
/// log, of which followers leave nothing in the end.
const MAY_NAME: [&str; 5] = ["LOG", "OUT_OF_BAND", "OUT_OF_BAND_LIST", "ROOM_HEADS", "ROOM_NAMES"];

/// The tables with a row that names a room by its id or its number.
async fn tables_naming(db: &Db, room: &RoomId, nid: RoomNid) -> BTreeSet<&'static str> {
    let names = [room.as_bytes().to_vec(), nid.0.to_string().into_bytes(), nid.0.to_be_bytes().to_vec()];
    let names_it = |bytes: &[u8]| names.iter().any(|name| bytes.windows(name.len()).any(|part| part == name));
    let mut found = BTreeSet::new();
    for table in registry::ALL {
        let range = Range::prefix(&[table.number]);
        let page = db.snapshot().scan(&range, Direction::Forward, usize::MAX).await.unwrap();
        if page.rows.iter().any(|(key, value)| names_it(key) || names_it(value)) {
            found.insert(table.name);
        }
    }
    found
}

/// What is known of a room beside its events and members.
async fn keep_everything_of(a: &Rooms, id: &RoomId, nid: RoomNid, said: &EventId) {
    let subscribed = ThreadSubscription { subscribed: true, automatic: false, ceased_at: 0 };
    let mut tx = Tx::new();
    tx.put::<OpenRooms>(&nid, &()).put::<NoticeRooms>(&user(ALICE), &id.to_string());
    tx.put::<ServiceDirectory>(&("irc".to_owned(), "libera".to_owned(), nid), &());
    tx.put_thread_subscription(&user(ALICE), (nid, said), None, &subscribed);
    a.0.store.commit(tx).await.unwrap();
    a.schedule(&actor(ALICE), id, text("later"), 60_000, None).await.unwrap();
    let tags = RawValue::from_string(r#"{"tags":{"m.favourite":{}}}"#.to_owned()).unwrap();
    let stranger = NewUser { localpart: Some("stranger".to_owned()), ..NewUser::default() };
    a.0.accounts.create_user(stranger).await.unwrap();
    for who in [ALICE, STRANGER] {
        a.0.accounts.set_account_data(&user(who), Scope::Room(id), "m.tag", &tags).await.unwrap();
    }
    let content = json!({ "body": "x", "url": "mxc://a.example/file" }).as_object().unwrap().clone();
    let picture =
        Draft { sticky_ms: Some(60_000), ..Draft::message(TimelineEventType::RoomMessage, content) };
    a.send(&actor(ALICE), id, picture, None).await.unwrap();
    let mut redaction = parsed(a, id, said).await;
    let nothing = json!({ "redacts": format!("${}", "A".repeat(43)) });
    redaction.insert("type".to_owned(), "m.room.redaction".into());
    redaction.insert("content".to_owned(), nothing.try_into().unwrap());
    let redaction = signed_in(&RoomVersionRules::V11, redaction);
    let taken = a.receive(server_name!("b.example"), vec![redaction]).await.pop().unwrap();
    taken.result.unwrap();
}

#[tokio::test]
async fn nothing_names_a_room_that_was_removed() {
    let (net, db) = (Net::default(), Db::new(Memory::default()));
    let retention = Some(Policy { default_days: 365, minimum_days: 1, maximum_days: 730 });
    let a = net.server_with("a.example", 1, db.clone(), Config { retention, ..Config::default() });
    let b = net.server("b.example", 2);
    let mut tx = Tx::new();
    // A number that no other bytes look like.
    tx.put_now::<RoomNames, _>(&RoomNid(0x7a7a_0000), &"!older:a.example".to_owned());
    a.0.store.commit(tx).await.unwrap();
    let body = json!({ "preset": "public_chat", "room_version": "11", "room_alias_name": "gone" });
    let id = room(&a, ALICE, body).await;
    let nid = a.number(&id).await.unwrap().unwrap();
    join(&b, BOB, &id).await;
    net.deliver().await;
    let said = say(&b, BOB, &id, "said").await;
    net.deliver().await;
    keep_everything_of(&a, &id, nid, &said).await;
    net.deliver().await;
    let held = tables_naming(&db, &id, nid).await;
    for table in [
        "ACCOUNT_DATA",
        "ACCOUNT_DATA_CHANGES",
        "ALIASES",
        "DELAYED_EVENTS",
        "MEDIA_USES",
        "NOTICE_ROOMS",
        "OPEN_ROOMS",
        "REMOTE_ROOMS",
        "SERVICE_DIRECTORY",
        "STICKY",
        "STICKY_ENDS",
        "THREAD_SUBSCRIPTIONS",
        "THREAD_SUBSCRIPTION_ORDER",
        "WAITING_REDACTIONS",
    ] {
        assert!(held.contains(table), "{table} of {held:?}");
    }

    a.leave(&actor(ALICE), &id, None).await.unwrap();
    net.deliver().await;
    a.purge(&id, nid, Force::No).await.unwrap();
    assert_eq!(tables_naming(&db, &id, nid).await, BTreeSet::from(MAY_NAME));
}
