//! Redacted events: to other servers and to authorization they say no more than redaction leaves of them.

use std::{slice::from_ref, sync::Arc};

use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_rules::{
    Pdu,
    build::SigningKey,
    policy::{Bypass, Door},
};
use chappe_store::{EventNum, Status};
use ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, RoomId, events::StateEventType, serde::Base64, server_name,
};
use serde_json::{Map, Value, json};

use super::net::{
    ALICE, BOB, CAROL, Net, actor, join, membership, noted, raw, room, say, state, status, stored, user,
    whole_state,
};
use crate::{BoundInvite, Change, Draft, Error, Rooms, author::By, desk::Desk, receive::Outliers};

const BETH: &str = "@beth:b.example";
const BESS: &str = "@bess:b.example";
const BELLA: &str = "@bella:b.example";

/// The id of a state event of the room as it is now.
async fn now(rooms: &Rooms, room: &RoomId, kind: &str, key: &str) -> OwnedEventId {
    let view = rooms.view(room).await.unwrap();
    let event = view.current(StateEventType::from(kind), key).await.unwrap().unwrap();
    event.pdu.event_id().to_owned()
}

async fn redact(rooms: &Rooms, who: &str, room: &RoomId, event: &EventId) {
    rooms.send(&actor(who), room, Draft::redaction(event, None), None).await.unwrap();
}

/// As a server would have it that lets its users redact what they like.
async fn redact_all_the_same(rooms: &Rooms, who: &str, room: &RoomId, event: &EventId) {
    let sender = user(who);
    let by = By { sender: &sender, bypass: Bypass::None, door: Door::Local };
    let mut desk = Desk::open(&rooms.0, room).await.unwrap();
    desk.author_unasked(by, Draft::redaction(event, None)).await.unwrap();
    rooms.store().commit(desk.seal()).await.unwrap();
}

#[tokio::test]
async fn who_is_invited_or_knocks_is_not_told_what_was_redacted() {
    for version in ["11", "12"] {
        let net = Net::default();
        let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
        let knock = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let body = json!({ "room_version": version, "name": "An insult", "initial_state": [knock] });
        let id = room(&a, ALICE, body).await;
        redact(&a, ALICE, &id, &now(&a, &id, "m.room.name", "").await).await;
        a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
        b.knock(&actor(BETH), &id, vec![a.server().to_owned()], None).await.unwrap();
        for who in [BOB, BETH] {
            let told = noted(&b, &id, who).await.unwrap().state;
            assert!(told.iter().any(|event| event.get().contains("m.room.name")), "{version} {who}");
            assert!(told.iter().all(|event| !event.get().contains("insult")), "{version} {who}");
        }
    }
}

#[tokio::test]
async fn what_waits_for_a_server_goes_without_what_was_redacted() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat", "room_version": "11" })).await;
    net.deliver().await;
    let said = say(&a, ALICE, &id, "secret").await;
    redact(&a, ALICE, &id, &said).await;
    net.deliver().await;
    assert!(!stored(&b, &id, &said).await.contains("secret"));
    let view = b.view(&id).await.unwrap();
    let num = view.reader.event_num(view.nid, &said).await.unwrap().unwrap();
    assert!(view.load_one(num).await.unwrap().is_redacted());
}

#[tokio::test]
async fn a_list_of_servers_that_is_redacted_is_read_in_one_way() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    net.deliver().await;
    let list = state("m.room.server_acl", "", &json!({ "allow": ["*"] }));
    let list = a.send(&actor(ALICE), &id, list, None).await.unwrap();
    for lasting in [&list, &now(&a, &id, "m.room.create", "").await] {
        let refused = a.send(&actor(ALICE), &id, Draft::redaction(lasting, None), None).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
    net.deliver().await;
    let (c, carol) = (server_name!("c.example"), user(CAROL));
    let doors = async || {
        let enters = a.make_join(c, &id, &carol, crate::VERSIONS).await.is_ok();
        let reads = a.state_ids_for(b.server(), &id, &list).await.is_ok();
        let said = say(&b, BOB, &id, "heard").await;
        net.deliver().await;
        let is_heard = a.store().read().event_address(&said).await.unwrap().is_some();
        [enters, reads, is_heard]
    };
    assert_eq!(doors().await, [true; 3]);
    redact_all_the_same(&a, ALICE, &id, &list).await;
    assert_eq!(doors().await, [false; 3]);
}

/// What the holder of an address's key signs for the user whose address it is.
fn vouched(key: &SigningKey, mxid: &str) -> Map<String, Value> {
    let signed = json!({ "mxid": mxid, "token": "tok" });
    let mut signed: CanonicalJsonObject = serde_json::from_value(signed).unwrap();
    key.sign_json(server_name!("is.example"), &mut signed);
    serde_json::from_value(serde_json::to_value(signed).unwrap()).unwrap()
}

/// An address that Bob invites by, and whoever holds its key.
async fn invite_address(b: &Rooms, id: &RoomId) -> (OwnedEventId, SigningKey) {
    let notary = SigningKey::from_seed([9; 32], "0").unwrap();
    let public: Base64 = Base64::new(notary.public_key().to_vec());
    let address = json!({
        "display_name": "b...", "key_validity_url": "https://is.example/valid", "public_key": public,
        "public_keys": [{ "public_key": public }],
    });
    let address = state("m.room.third_party_invite", "tok", &address);
    (b.send(&actor(BOB), id, address, None).await.unwrap(), notary)
}

fn bound(notary: &SigningKey, mxid: &str) -> BoundInvite {
    BoundInvite { sender: user(BOB), invited: user(mxid), signed: vouched(notary, mxid) }
}

/// Events of a room of `b` come to `a` as somebody's auth events.
async fn come_without_a_place((a, b): (&Rooms, &Rooms), id: &RoomId, events: &[&OwnedEventId]) {
    let rules = Desk::open(&a.0, id).await.unwrap().rules;
    let mut proven = Vec::new();
    for event in events {
        let pdu = Pdu::parse(rules, raw(b, id, event).await.get().as_bytes()).unwrap();
        proven.push(a.0.check_one(rules, pdu).await.unwrap());
    }
    a.0.store_outliers(id, Outliers::from(proven)).await.unwrap();
}

#[tokio::test]
async fn the_invitation_of_an_address_ends_with_its_redaction() {
    for version in ["1", "10", "12"] {
        let net = Net::default();
        let open = json!({ "type": "m.room.join_rules", "content": { "join_rule": "public" } });
        let (a, b, id) = net.couple(json!({ "room_version": version, "initial_state": [open] })).await;
        net.deliver().await;
        let (address, notary) = invite_address(&b, &id).await;
        net.deliver().await;
        redact(&a, ALICE, &id, &address).await;
        // Bob's server has not heard of it yet.
        b.exchange_invite(&id, bound(&notary, BETH)).await.unwrap();
        let invite = now(&b, &id, "m.room.member", BETH).await;
        a.receive(b.server(), vec![raw(&b, &id, &invite).await]).await;
        assert_eq!(status(&a, &id, &invite).await, Status::Rejected, "{version}");
        b.exchange_invite(&id, bound(&notary, BELLA)).await.unwrap();
        let aside = now(&b, &id, "m.room.member", BELLA).await;
        come_without_a_place((&a, &b), &id, &[&aside]).await;
        assert_eq!(status(&a, &id, &aside).await, Status::Outlier, "as Synapse has it, {version}");
        net.deliver().await;
        let late = b.exchange_invite(&id, bound(&notary, BESS)).await;
        assert!(matches!(late, Err(Error::Forbidden(_))), "{version}: {late:?}");
    }
}

/// Whoever comes later never hears what the levels said before.
#[tokio::test]
async fn who_may_invite_is_said_by_what_is_left_of_the_levels() {
    for (version, may_invite) in [("6", true), ("10", true), ("11", false)] {
        let net = Net::default();
        let (a, b, id) = net.couple(json!({ "preset": "public_chat", "room_version": version })).await;
        net.deliver().await;
        let refused = b.change(&actor(BOB), &id, &user(BETH), Change::Invite, None).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{version}: {refused:?}");
        redact(&a, ALICE, &id, &now(&a, &id, "m.room.power_levels", "").await).await;
        net.deliver().await;
        let c = net.server("c.example", 3);
        join(&c, CAROL, &id).await;
        net.deliver().await;
        let invited = b.change(&actor(BOB), &id, &user(BETH), Change::Invite, None).await;
        assert_eq!(invited.is_ok(), may_invite, "{version}: {invited:?}");
        net.deliver().await;
        for rooms in [&a, &b, &c] {
            let known = membership(rooms, &id, BETH).await;
            assert_eq!(known, may_invite.then_some("invite"), "{version} {}", rooms.server());
        }
    }
}

#[tokio::test]
async fn what_is_shown_again_is_read_again_and_resolution_always_reads_it() {
    let a = Net::default().server("a.example", 1);
    let id = room(&a, ALICE, json!({ "room_version": "11", "name": "An insult" })).await;
    let name = now(&a, &id, "m.room.name", "").await;
    let read = async || {
        let desk = Desk::open(&a.0, &id).await.unwrap();
        let nums: Vec<EventNum> = desk.nums(from_ref(&name)).await.unwrap().into_iter().flatten().collect();
        let held = desk.current("m.room.name".into(), "").await.unwrap().unwrap();
        let named = desk.judged_as_left(&nums).await.unwrap().remove(0).pdu;
        let resolved = desk.judged(&nums).await.unwrap().remove(0).pdu;
        [held, named, resolved].map(|pdu| pdu.json().contains("insult"))
    };
    assert_eq!(read().await, [true; 3]);
    redact(&a, ALICE, &id, &name).await;
    assert_eq!(read().await, [false, false, true]);
    let mut desk = Desk::open(&a.0, &id).await.unwrap();
    let num = desk.reader.event_num(desk.nid, &name).await.unwrap().unwrap();
    let mut meta = desk.reader.event_meta(desk.nid, num).await.unwrap();
    desk.unredact(num, &mut meta).await.unwrap();
    a.store().commit(desk.seal()).await.unwrap();
    assert_eq!(read().await, [true; 3]);
}

#[tokio::test]
async fn a_new_room_takes_over_nothing_that_was_redacted() {
    let a = Net::default().server("a.example", 1);
    let id = room(&a, ALICE, json!({ "room_version": "10", "name": "An insult" })).await;
    redact(&a, ALICE, &id, &now(&a, &id, "m.room.name", "").await).await;
    let new = a.upgrade(&actor(ALICE), &id, "11".try_into().unwrap(), Vec::new()).await.unwrap();
    for event in whole_state(&a, &new).await.values() {
        let event = stored(&a, &new, event).await;
        assert!(!event.contains("insult"), "{event}");
    }
}

#[tokio::test]
async fn only_where_state_was_redacted_it_is_looked_for() {
    let trips = Arc::new(RoundTrips::default());
    let db = Db::new(Counting::new(Memory::default(), trips.clone()));
    let a = Net::default().server_on("a.example", 1, db);
    let id = room(&a, ALICE, json!({ "room_version": "10", "name": "An insult" })).await;
    let reads = async || {
        say(&a, ALICE, &id, "warm").await;
        trips.take();
        say(&a, ALICE, &id, "counted").await;
        let (gets, scans, _) = trips.take();
        gets + scans
    };
    let before = reads().await;
    let said = say(&a, ALICE, &id, "a slip of the pen").await;
    redact(&a, ALICE, &id, &said).await;
    assert_eq!(reads().await, before, "a message is no state");
    redact(&a, ALICE, &id, &now(&a, &id, "m.room.name", "").await).await;
    assert_eq!(reads().await, before + 1);
}
