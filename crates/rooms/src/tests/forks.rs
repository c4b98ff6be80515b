//! Forks: what becomes a head and what does not, and states with holes.

use std::time::Duration;

use chappe_accounts::{NewUser, UserKind};
use chappe_rules::Pdu;
use chappe_store::{EventNum, Membership, Removed, Status, StoredPdu};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName,
    events::room::member::MembershipState, room_version_rules::RoomVersionRules, server_name,
};
use serde_json::{Value, json, value::RawValue};

use super::{
    malformed::{parsed, signed_in},
    net::{
        ALICE, BOB, CAROL, Net, actor, amend, bodies, join, membership, noted, raw, room, say, state, status,
        user, whole_state,
    },
};
use crate::{
    Actor, Change, Config, Error, MembersRequest, Rooms, SignedMember, Standing, desk::Desk,
    receive::Outliers,
};

async fn three(net: &Net) -> ([Rooms; 3], OwnedRoomId) {
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    for (rooms, who) in [(&b, BOB), (&c, CAROL)] {
        join(rooms, who, &id).await;
        net.deliver().await;
    }
    ([a, b, c], id)
}

/// Hands one event of one server to another.
async fn hand(event: &EventId, id: &RoomId, (from, name): (&Rooms, &ServerName), to: &Rooms) -> bool {
    to.receive(name, vec![raw(from, id, event).await]).await[0].result.is_ok()
}

async fn heads(rooms: &Rooms, id: &RoomId) -> Vec<OwnedEventId> {
    let view = rooms.view(id).await.unwrap();
    let mut nums: Vec<EventNum> = view.head.extremities.clone();
    nums.sort_unstable();
    let found = view.reader.pdus(view.nid, &nums).await.unwrap();
    found.iter().map(|stored| stored.event_id.clone()).collect()
}

/// What Bob has said in a room of three, on which much follows that a says.
async fn of_long_ago(net: &Net) -> ([Rooms; 3], OwnedRoomId, CanonicalJsonObject) {
    let (all, id) = three(net).await;
    let [a, b, _] = &all;
    let said = say(b, BOB, &id, "of long ago").await;
    let old = parsed(b, &id, &said).await;
    net.deliver().await;
    for n in 0..1_000 {
        let draft = state("x.test", &n.to_string(), &json!({}));
        a.send(&actor(ALICE), &id, draft, None).await.unwrap();
    }
    (all, id, old)
}

/// A membership of Bob's in place of what he said, or at `prev`.
fn in_place_of(old: &CanonicalJsonObject, content: Value, prev: Option<&EventId>) -> Pdu {
    let mut event = old.clone();
    event.insert("type".to_owned(), CanonicalJsonValue::String("m.room.member".to_owned()));
    event.insert("state_key".to_owned(), CanonicalJsonValue::String(BOB.to_owned()));
    event.insert("content".to_owned(), content.try_into().unwrap());
    if let Some(prev) = prev {
        event.insert("prev_events".to_owned(), json!([prev]).try_into().unwrap());
    }
    Pdu::parse(&RoomVersionRules::V11, signed_in(&RoomVersionRules::V11, event).get().as_bytes()).unwrap()
}

#[tokio::test]
async fn who_rests_on_an_old_fork_pays_for_it_and_nobody_beside_it() {
    let net = Net::default();
    let ([a, ..], id, old) = of_long_ago(&net).await;
    a.reconfigure(Config { told_changes_per_hour: 100, ..Config::default() });
    let named = |name: &str, prev: Option<&EventId>| {
        in_place_of(&old, json!({ "membership": "join", "displayname": name }), prev)
    };
    let (guilty, innocent) = (server_name!("c.example"), server_name!("b.example"));
    let takes =
        async |by: &ServerName, event: &Pdu| a.receive(by, vec![event.to_raw()]).await.remove(0).result;
    let now = heads(&a, &id).await.remove(0);
    assert!(takes(guilty, &named("first fork", None)).await.is_ok());
    assert_eq!(heads(&a, &id).await.len(), 2);
    let mut last = now;
    for name in ["beside it", "and again"] {
        let event = named(name, Some(&last));
        assert!(takes(innocent, &event).await.is_ok(), "{name}");
        last = event.event_id().to_owned();
    }
    assert!(matches!(takes(guilty, &named("second fork", None)).await, Err(Error::Unreachable)));
    assert!(takes(innocent, &named("its own fork", None)).await.is_ok());
    let leave = in_place_of(&old, json!({ "membership": "leave" }), None);
    let handed_in = SignedMember { event_id: leave.event_id().to_owned(), pdu: leave.to_raw() };
    let waits = a.accept_leave(innocent, &id, handed_in).await;
    assert!(matches!(waits, Err(Error::Unreachable)), "{waits:?}");
}

/// The same on top of others.
fn on(old: &CanonicalJsonObject, prev: &[&EventId]) -> CanonicalJsonObject {
    let mut event = old.clone();
    event.insert("prev_events".to_owned(), json!(prev).try_into().unwrap());
    event
}

#[tokio::test]
async fn who_goes_on_with_an_old_fork_pays_for_each_state_on_it() {
    let net = Net::default();
    let ([a, ..], _, old) = of_long_ago(&net).await;
    a.reconfigure(Config { told_changes_per_hour: 100, ..Config::default() });
    let named = |name: &str, prev: Option<&EventId>| {
        in_place_of(&old, json!({ "membership": "join", "displayname": name }), prev)
    };
    let takes =
        async |by: &ServerName, event: &Pdu| a.receive(by, vec![event.to_raw()]).await.remove(0).result;
    let (one, other) = (server_name!("c.example"), server_name!("b.example"));
    let first = named("first", None);
    assert!(takes(one, &first).await.is_ok());
    let rules = &RoomVersionRules::V11;
    let said = signed_in(rules, on(&old, &[first.event_id()]));
    let said = Pdu::parse(rules, said.get().as_bytes()).unwrap();
    assert!(takes(one, &said).await.is_ok(), "what it comes to is known");
    let second = named("second", Some(said.event_id()));
    let waits = takes(one, &second).await;
    assert!(matches!(waits, Err(Error::Unreachable)), "{waits:?}");
    assert!(takes(other, &second).await.is_ok());
    let waits = takes(other, &named("third", Some(second.event_id()))).await;
    assert!(matches!(waits, Err(Error::Unreachable)), "{waits:?}");
}

#[tokio::test]
async fn who_rests_on_what_was_not_wanted_on_an_old_fork_pays_for_it() {
    let net = Net::default();
    let ([a, ..], id, old) = of_long_ago(&net).await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Ban, None).await.unwrap();
    a.reconfigure(Config { told_changes_per_hour: 100, ..Config::default() });
    let now = heads(&a, &id).await.remove(0);
    let joined = |name: &str| json!({ "membership": "join", "displayname": name });
    let takes =
        async |event: &Pdu| a.receive(server_name!("c.example"), vec![event.to_raw()]).await.remove(0).result;
    let takes_both = async |name: &str| {
        let unwanted = in_place_of(&old, joined(name), None);
        assert!(takes(&unwanted).await.is_ok());
        assert_eq!(status(&a, &id, unwanted.event_id()).await, Status::SoftFailed);
        takes(&in_place_of(&on(&old, &[unwanted.event_id(), &now]), joined("on it"), None)).await
    };
    assert!(takes_both("first").await.is_ok());
    let waits = takes_both("second").await;
    assert!(matches!(waits, Err(Error::Unreachable)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn an_old_fork_does_not_stay_beside_a_head_that_moves() {
    let net = Net::default();
    let ([a, ..], id, old) = of_long_ago(&net).await;
    let now = heads(&a, &id).await.remove(0);
    let named = |name: &str, prev: Option<&EventId>| {
        in_place_of(&old, json!({ "membership": "join", "displayname": name }), prev).to_raw()
    };
    let world = a.0.world.clone();
    let worker = {
        let a = a.clone();
        world.spawn("heads", async move { a.run_heads().await })
    };
    let takes = async |by: &ServerName, event: Box<RawValue>| {
        a.receive(by, vec![event]).await.remove(0).result.unwrap();
    };
    takes(server_name!("c.example"), named("fork", None)).await;
    world.sleep(Duration::from_mins(1)).await;
    assert_eq!(heads(&a, &id).await.len(), 2, "two heads by themselves may stay");
    takes(server_name!("b.example"), named("beside it", Some(&now))).await;
    assert_eq!(heads(&a, &id).await.len(), 2, "not at once: others see the same");
    world.sleep(Duration::from_mins(1)).await;
    assert_eq!(heads(&a, &id).await.len(), 1);
    assert!(world.shut_down(Duration::from_secs(1)).await.is_empty());
    drop(worker);
}

#[tokio::test]
async fn an_event_whose_gap_needs_what_is_not_told_now_is_taken_later() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    net.deliver().await;
    b.reconfigure(Config { missing_events_batch: 1, missing_events_limit: 1, ..Config::default() });
    say(&a, ALICE, &id, "one").await;
    say(&a, ALICE, &id, "two").await;
    let last = say(&a, ALICE, &id, "three").await;
    net.lose(&a, "b.example").await;
    let (origin, last) = (server_name!("a.example"), raw(&a, &id, &last).await);
    let told = async || b.receive(origin, vec![last.clone()]).await.remove(0).result;
    net.silent.lock().insert(origin.to_owned());
    let too_soon = told().await;
    assert!(matches!(too_soon, Err(Error::Unreachable)), "{too_soon:?}");
    net.silent.lock().clear();
    told().await.unwrap();
    assert_eq!(bodies(&b, &id).await, ["two", "three"]);
}

#[tokio::test]
async fn who_does_not_tell_the_state_before_what_is_missing_is_asked_for_that_before_what_follows() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    net.deliver().await;
    b.reconfigure(Config { missing_events_batch: 1, missing_events_limit: 1, ..Config::default() });
    let one = say(&a, ALICE, &id, "one").await;
    say(&a, ALICE, &id, "two").await;
    let last = say(&a, ALICE, &id, "three").await;
    net.lose(&a, "b.example").await;
    // As of an event that it has rejected, or has as part of a state alone.
    net.untold.lock().insert((server_name!("a.example").to_owned(), one));
    assert!(hand(&last, &id, (&a, server_name!("a.example")), &b).await);
    assert_eq!(bodies(&b, &id).await, ["two", "three"]);
    assert_eq!(*net.states.lock(), 2);
}

#[tokio::test]
async fn who_came_while_this_server_was_away_is_heard_after_a_gap_that_stays() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
    net.deliver().await;
    b.reconfigure(Config { missing_events_batch: 1, missing_events_limit: 1, ..Config::default() });
    let c = net.server("c.example", 3);
    join(&c, CAROL, &id).await;
    net.lose(&a, "b.example").await;
    say(&c, CAROL, &id, "one").await;
    let two = say(&c, CAROL, &id, "two").await;
    let three = say(&c, CAROL, &id, "three").await;
    net.lose(&c, "b.example").await;
    assert_eq!(membership(&b, &id, CAROL).await, None);
    assert!(hand(&three, &id, (&c, server_name!("c.example")), &b).await);
    assert_eq!(status(&b, &id, &two).await, Status::Accepted);
    assert_eq!(bodies(&b, &id).await, ["two", "three"]);
    assert_eq!(membership(&b, &id, CAROL).await, Some("join"));
}

#[tokio::test]
async fn who_was_put_out_here_is_not_heard_after_a_gap_that_stays() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    a.reconfigure(Config { missing_events_batch: 1, missing_events_limit: 1, ..Config::default() });
    a.change(&actor(ALICE), &id, &user(CAROL), Change::Ban, None).await.unwrap();
    net.lose(&a, "c.example").await;
    say(&c, CAROL, &id, "one").await;
    let two = say(&c, CAROL, &id, "two").await;
    let three = say(&c, CAROL, &id, "three").await;
    assert!(hand(&three, &id, (&c, server_name!("c.example")), &a).await);
    for event in [&two, &three] {
        assert_eq!(status(&a, &id, event).await, Status::SoftFailed);
    }
    assert_eq!(membership(&a, &id, CAROL).await, Some("ban"));
}

#[tokio::test]
async fn what_it_costs_to_find_out_whether_somebody_came_is_for_whoever_gives_the_event() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    for n in 0..1_000 {
        let draft = state("x.test", &n.to_string(), &json!({}));
        a.send(&actor(ALICE), &id, draft, None).await.unwrap();
    }
    a.change(&actor(ALICE), &id, &user(CAROL), Change::Ban, None).await.unwrap();
    net.lose(&a, "c.example").await;
    a.reconfigure(Config {
        missing_events_batch: 1,
        missing_events_limit: 1,
        told_changes_per_hour: 100,
        ..Config::default()
    });
    for body in ["one", "two"] {
        say(&c, CAROL, &id, body).await;
    }
    let three = say(&c, CAROL, &id, "three").await;
    let three = raw(&c, &id, &three).await;
    let waits = a.receive(server_name!("c.example"), vec![three]).await.remove(0).result;
    assert!(matches!(waits, Err(Error::Unreachable)), "{waits:?}");
}

/// Has a server tell an event as if its id were made in another way there.
async fn change_id(rooms: &Rooms, id: &RoomId, event: &EventId) {
    let mut told = parsed(rooms, id, event).await;
    told.insert("depth".to_owned(), CanonicalJsonValue::Integer(77_777.into()));
    let mut desk = Desk::open(&rooms.0, id).await.unwrap();
    let (nid, num) = (desk.nid, desk.reader.event_num(desk.nid, event).await.unwrap().unwrap());
    let told = StoredPdu::new(event.to_owned(), serde_json::to_string(&told).unwrap());
    desk.tx.complete_event(nid, num, &told);
    let at = rooms.store().commit(desk.seal()).await.unwrap();
    rooms.store().forget(at, nid, &Removed { events: vec![num], ids: Vec::new() });
}

#[tokio::test]
async fn a_state_is_used_without_the_few_events_whose_ids_are_made_otherwise_elsewhere() {
    for (changed, is_used) in [(1, true), (6, false)] {
        let net = Net::default();
        let (a, b, id) = net.couple(json!({ "preset": "public_chat" })).await;
        net.deliver().await;
        b.reconfigure(Config { missing_events_batch: 1, missing_events_limit: 1, ..Config::default() });
        for n in 0..12 {
            let draft = state("x.test", &n.to_string(), &json!({}));
            let event = a.send(&actor(ALICE), &id, draft, None).await.unwrap();
            if n < changed {
                change_id(&a, &id, &event).await;
            }
        }
        for body in ["one", "two"] {
            say(&a, ALICE, &id, body).await;
        }
        let last = say(&a, ALICE, &id, "three").await;
        net.lose(&a, "b.example").await;
        assert_eq!(hand(&last, &id, (&a, server_name!("a.example")), &b).await, is_used, "{changed}");
        let known = whole_state(&b, &id).await;
        let has = |key: &str| known.contains_key(&("x.test".to_owned(), key.to_owned()));
        assert_eq!((has("0"), has("11")), (false, is_used), "{changed}");
    }
}

#[tokio::test]
async fn what_comes_from_elsewhere_while_it_is_asked_for_is_not_missing() {
    let net = Net::default();
    let ([a, b, c], id) = three(&net).await;
    let first = say(&a, ALICE, &id, "first").await;
    net.lose(&a, "b.example").await;
    net.deliver().await;
    let second = say(&c, CAROL, &id, "second").await;
    let (late, first) = (b.clone(), raw(&a, &id, &first).await);
    *net.meanwhile.lock() = Some(Box::pin(async move {
        late.receive(server_name!("a.example"), vec![first]).await;
    }));
    assert!(hand(&second, &id, (&c, server_name!("c.example")), &b).await);
    assert_eq!(bodies(&b, &id).await, ["first", "second"]);
}

#[tokio::test]
async fn what_is_older_than_the_join_does_not_become_a_head() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    // Neither hears the other, so a walks down to the beginning of the room when c asks what it missed.
    let ours = say(&c, CAROL, &id, "ours").await;
    say(&a, ALICE, &id, "missed").await;
    let invite = json!({ "join_rule": "invite" });
    a.send(&actor(ALICE), &id, state("m.room.join_rules", "", &invite), None).await.unwrap();
    let last = say(&a, ALICE, &id, "last").await;
    assert!(hand(&last, &id, (&a, server_name!("a.example")), &c).await);
    assert_eq!(heads(&c, &id).await, [ours, last]);
    assert_eq!(bodies(&c, &id).await, ["ours", "missed", "last"]);
    net.deliver().await;
    assert_eq!(whole_state(&a, &id).await, whole_state(&c, &id).await);
    assert!(whole_state(&a, &id).await.contains_key(&("m.room.member".to_owned(), BOB.to_owned())));
}

#[tokio::test]
async fn heads_are_covered_through_soft_failed_events() {
    let net = Net::default();
    let ([a, b, c], id) = three(&net).await;
    let (from_b, from_c) = ((&b, server_name!("b.example")), (&c, server_name!("c.example")));
    a.change(&actor(ALICE), &id, &user(BOB), Change::Ban, None).await.unwrap();
    let ban = heads(&a, &id).await.remove(0);
    // Neither b nor c knows of the ban yet.
    let first = say(&c, CAROL, &id, "first").await;
    assert!(hand(&first, &id, from_c, &a).await && hand(&first, &id, from_c, &b).await);
    assert_eq!(heads(&a, &id).await, [ban.clone(), first]);
    let banned = say(&b, BOB, &id, "from the banned").await;
    assert!(hand(&banned, &id, from_b, &a).await && hand(&banned, &id, from_b, &c).await);
    assert_eq!(status(&a, &id, &banned).await, Status::SoftFailed);
    let second = say(&c, CAROL, &id, "second").await;
    assert!(hand(&second, &id, from_c, &a).await);
    assert_eq!(heads(&a, &id).await, [ban, second]);
}

#[tokio::test(start_paused = true)]
async fn guests_leave_though_what_shuts_them_out_comes_by_a_fork() {
    let net = Net::default();
    let ([a, b, _], id) = three(&net).await;
    let new = NewUser { localpart: Some("gus".to_owned()), kind: UserKind::Guest, ..NewUser::default() };
    b.0.accounts.create_user(new).await.unwrap();
    let guest = Actor { standing: Standing::Guest, ..actor("@gus:b.example") };
    let access = async |what: &str| {
        let draft = state("m.room.guest_access", "", &json!({ "guest_access": what }));
        a.send(&actor(ALICE), &id, draft, None).await.unwrap()
    };
    access("can_join").await;
    net.deliver().await;
    b.join(&guest, &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    net.deliver().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    say(&b, BOB, &id, "ours").await;
    let closed = access("forbidden").await;
    assert!(hand(&closed, &id, (&a, server_name!("a.example")), &b).await);
    assert_eq!(heads(&b, &id).await.len(), 2);
    b.dismiss_guests().await.unwrap();
    assert_eq!(membership(&b, &id, "@gus:b.example").await, Some("leave"));
    assert_eq!(membership(&b, &id, BOB).await, Some("join"));
}

/// More than is fetched for one event.
const MANY: usize = 700;
/// How many events b fetches before another.
const FEW: usize = 500;

#[tokio::test]
async fn a_gap_is_followed_back_to_what_is_known() {
    let net = Net::default();
    let ([a, b, _], id) = three(&net).await;
    let mut said = Vec::new();
    for n in 0..300 {
        said.push(say(&a, ALICE, &id, &n.to_string()).await);
    }
    assert!(hand(&said[299], &id, (&a, server_name!("a.example")), &b).await);
    assert_eq!(heads(&b, &id).await, said[299..]);
    assert_eq!(bodies(&b, &id).await.len(), 300);
}

#[tokio::test(start_paused = true)]
async fn many_heads_are_brought_together_unasked() {
    let net = Net::default();
    let (a, b, id) = net.couple(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let said = say(&b, BOB, &id, "one of many").await;
    let said = raw(&b, &id, &said).await;
    let forks: Vec<Box<RawValue>> = (0..30)
        .map(|number| {
            let mut event: CanonicalJsonObject = serde_json::from_str(said.get()).unwrap();
            let content =
                CanonicalJsonObject::from([("body".to_owned(), CanonicalJsonValue::Integer(number.into()))]);
            event.insert("content".to_owned(), CanonicalJsonValue::Object(content));
            signed_in(&RoomVersionRules::V11, event)
        })
        .collect();
    let world = a.0.world.clone();
    let worker = {
        let a = a.clone();
        world.spawn("heads", async move { a.run_heads().await })
    };
    let taken = a.receive(server_name!("b.example"), forks).await;
    assert!(taken.iter().all(|outcome| outcome.result.is_ok()));
    let together = async {
        while heads(&a, &id).await.len() > 10 {
            world.sleep(Duration::from_secs(1)).await;
        }
    };
    assert!(heads(&a, &id).await.len() > 20, "not at once: others see the same");
    assert!(world.timeout(Duration::from_mins(2), together).await.is_some());
    assert!(world.shut_down(Duration::from_secs(1)).await.is_empty());
    drop(worker);
}

#[tokio::test]
async fn what_was_missing_does_not_become_a_head_when_it_comes() {
    let net = Net::default();
    let ([a, b, _], id) = three(&net).await;
    b.reconfigure(Config { missing_events_limit: FEW, ..Config::default() });
    let from_a = (&a, server_name!("a.example"));
    let mut said = Vec::new();
    for n in 0..MANY {
        said.push(say(&a, ALICE, &id, &n.to_string()).await);
    }
    let joined = heads(&b, &id).await.remove(0);
    assert!(hand(&said[MANY - 1], &id, from_a, &b).await);
    let last = said[MANY - 1].clone();
    assert_eq!(heads(&b, &id).await, [joined, last.clone()]);
    let reader = b.store().read();
    let nid = reader.room_nid(&id).await.unwrap().unwrap();
    let gaps = reader.gaps_from(nid, i64::MIN, 100).await.unwrap();
    let missing = gaps.last().unwrap().missing[0].clone();
    drop(reader);
    assert!(hand(&missing, &id, from_a, &b).await);
    assert_eq!(heads(&b, &id).await, [last]);
    assert_eq!(bodies(&b, &id).await.len(), MANY);
}

#[tokio::test]
async fn a_state_with_a_hole_is_not_used() {
    let net = Net::default();
    let ([a, b, _], id) = three(&net).await;
    b.reconfigure(Config { missing_events_limit: FEW, ..Config::default() });
    let from_a = (&a, server_name!("a.example"));
    let name = a.send(&actor(ALICE), &id, state("m.room.name", "", &json!({ "name": "n" })), None).await;
    let name = name.unwrap();
    let mut last = name.clone();
    for n in 0..MANY {
        last = say(&a, ALICE, &id, &n.to_string()).await;
    }
    let before = (heads(&b, &id).await, whole_state(&b, &id).await);
    net.hidden.lock().insert(name.clone());
    assert!(!hand(&last, &id, from_a, &b).await);
    assert_eq!((heads(&b, &id).await, whole_state(&b, &id).await), before);
    // Another event on top brings it in once the state can be had.
    net.hidden.lock().clear();
    let above = say(&a, ALICE, &id, "next").await;
    assert!(hand(&above, &id, from_a, &b).await);
    assert_eq!(heads(&b, &id).await.last(), Some(&above));
    assert_eq!(whole_state(&a, &id).await, whole_state(&b, &id).await);
}

/// Writes what `b` tells of a room, in the order of time.
struct Scribe<'a> {
    a: &'a Rooms,
    id: &'a RoomId,
    /// What justifies every event.
    auth: Vec<OwnedEventId>,
    told: u64,
}

impl Scribe<'_> {
    async fn tell(&mut self, mut event: Value, prev: &[&EventId], auth: &[&EventId]) -> OwnedEventId {
        self.told += 1;
        event["room_id"] = json!(self.id);
        event["prev_events"] = json!(prev);
        let named = self.auth.iter().map(|id| &**id).chain(auth.iter().copied());
        event["auth_events"] = named.map(|id| json!(id)).collect();
        event["depth"] = json!(100 + self.told);
        event["origin_server_ts"] = json!(self.a.0.world.now() + self.told);
        let event = signed_in(&RoomVersionRules::V11, serde_json::from_value(event).unwrap());
        let outcome = self.a.receive(server_name!("b.example"), vec![event]).await.remove(0);
        assert!(outcome.result.is_ok(), "{outcome:?}");
        outcome.event_id.unwrap()
    }
}

fn said(sender: &str, body: &str) -> Value {
    json!({ "type": "m.room.message", "sender": sender, "content": { "msgtype": "m.text", "body": body } })
}

fn set(sender: &str, kind: &str, key: &str, content: &Value) -> Value {
    json!({ "type": kind, "sender": sender, "state_key": key, "content": content })
}

#[tokio::test]
async fn who_is_in_again_by_what_conflicting_state_rests_on_is_in() {
    const DAVE: &str = "@dave:b.example";
    let net = Net::default();
    let (a, _, id) = net.couple(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let levels = json!({ "users": { ALICE: 100, BOB: 100 }, "events": { "m.room.topic": 0 } });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    let base = heads(&a, &id).await.remove(0);
    let known = whole_state(&a, &id).await;
    let at = |kind: &str, key: &str| known[&(kind.to_owned(), key.to_owned())].clone();
    let (bob, public) = (at("m.room.member", BOB), at("m.room.join_rules", ""));
    let auth = vec![at("m.room.create", ""), at("m.room.power_levels", "")];
    let mut b = Scribe { a: &a, id: &id, auth, told: 0 };
    let rule = |rule: &str| set(BOB, "m.room.join_rules", "", &json!({ "join_rule": rule }));
    let topic = |sender: &str, text: &str| set(sender, "m.room.topic", "", &json!({ "topic": text }));
    // Bob closes the room while Dave comes in and sets the topic: the topic stays, Dave does not.
    let closed = b.tell(rule("invite"), &[&base], &[&bob]).await;
    let join = set(DAVE, "m.room.member", DAVE, &json!({ "membership": "join" }));
    let came = b.tell(join, &[&base], &[&public]).await;
    let first = b.tell(topic(DAVE, "first"), &[&came], &[&came]).await;
    let together = b.tell(said(BOB, "together"), &[&closed, &first], &[&bob]).await;
    let now = whole_state(&a, &id).await;
    assert_eq!(now[&("m.room.topic".to_owned(), String::new())], first);
    assert_eq!(membership(&a, &id, DAVE).await, None);
    // Where anybody may come in again, a fork over the topic looks at Dave's join once more.
    let open = b.tell(rule("public"), &[&together], &[&bob]).await;
    let second = b.tell(topic(BOB, "second"), &[&open], &[&bob]).await;
    let beside = b.tell(said(BOB, "beside"), &[&open], &[&bob]).await;
    let merged = b.tell(said(BOB, "merged"), &[&second, &beside], &[&bob]).await;
    assert_eq!(whole_state(&a, &id).await[&("m.room.topic".to_owned(), String::new())], second);
    assert_eq!(membership(&a, &id, DAVE).await, Some("join"));
    b.tell(said(DAVE, "back"), &[&merged], &[&came]).await;
    assert_eq!(bodies(&a, &id).await, ["together", "beside", "merged", "back"]);
}

#[tokio::test]
async fn who_is_taken_out_by_a_resolution_is_noted_to_be_out() {
    const DAN: &str = "@dan:a.example";
    let net = Net::default();
    let (a, _, id) = net.couple(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let levels = json!({ "users": { ALICE: 100, BOB: 100 } });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    let base = heads(&a, &id).await.remove(0);
    let known = whole_state(&a, &id).await;
    let at = |kind: &str, key: &str| known[&(kind.to_owned(), key.to_owned())].clone();
    let bob = at("m.room.member", BOB);
    let auth = vec![at("m.room.create", ""), at("m.room.power_levels", "")];
    let mut b = Scribe { a: &a, id: &id, auth, told: 0 };
    a.join(&actor(DAN), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    assert_eq!(membership(&a, &id, DAN).await, Some("join"));
    // Bob closed the room without knowing of that.
    b.tell(set(BOB, "m.room.join_rules", "", &json!({ "join_rule": "invite" })), &[&base], &[&bob]).await;
    assert_eq!(membership(&a, &id, DAN).await, None);
    let nid = a.view(&id).await.unwrap().nid;
    let farewell = noted(&a, &id, DAN).await.unwrap();
    assert_eq!((farewell.kind(), farewell.number), (Some(Membership::Leave), Some(nid.0)));
    let public = json!({ "join_rule": "public" });
    a.send(&actor(ALICE), &id, state("m.room.join_rules", "", &public), None).await.unwrap();
    a.join(&actor(DAN), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    assert!(noted(&a, &id, DAN).await.is_none());
}

#[tokio::test]
async fn members_at_a_token_are_those_of_the_room_and_not_of_a_fork() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Ban, None).await.unwrap();
    // Carol's server does not know of it yet.
    let said = say(&c, CAROL, &id, "by a fork").await;
    assert!(hand(&said, &id, (&c, server_name!("c.example")), &a).await);
    assert_eq!(members_before_more(&a, &id).await, [ALICE, CAROL]);
}

#[tokio::test]
async fn members_at_a_token_behind_a_redaction_that_nobody_is_told_of_are_those_of_then() {
    let net = Net::default();
    let ([a, ..], id) = three(&net).await;
    let (_, redaction) = redacted_before_it_comes(&a, &id).await;
    assert!(a.visible_to_user(&user(ALICE), &id, &redaction).await.is_err());
    assert_eq!(members_before_more(&a, &id).await, [ALICE, BOB, CAROL]);
}

/// The members at the token of a sync, once more has been said.
async fn members_before_more(a: &Rooms, id: &RoomId) -> Vec<String> {
    let token = format!("c1_{}_0-0", a.store().read().position().0);
    say(a, ALICE, id, "and on").await;
    let membership = Some(MembershipState::Join);
    let request = MembersRequest { at: Some(&token), membership, ..MembersRequest::default() };
    let members = a.members(&actor(ALICE), id, &request).await.unwrap();
    let members = members.iter().map(|event| serde_json::from_str::<Value>(event.get()).unwrap());
    let mut members: Vec<_> = members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect();
    members.sort();
    members
}

/// What Bob said that is not here yet, and the id of the redaction that is.
async fn redacted_before_it_comes(a: &Rooms, id: &RoomId) -> (Pdu, OwnedEventId) {
    let rules = &RoomVersionRules::V11;
    let base = heads(a, id).await.remove(0);
    let known = whole_state(a, id).await;
    let at = |kind: &str, key: &str| known[&(kind.to_owned(), key.to_owned())].clone();
    let auth = [at("m.room.create", ""), at("m.room.power_levels", ""), at("m.room.member", BOB)];
    let signed = |kind: &str, content: Value| {
        let event = json!({
            "type": kind, "sender": BOB, "room_id": id, "content": content, "depth": 100,
            "origin_server_ts": a.0.world.now(), "prev_events": [base], "auth_events": auth,
        });
        signed_in(rules, serde_json::from_value(event).unwrap())
    };
    let said = signed("m.room.message", json!({ "msgtype": "m.text", "body": "kept" }));
    let said = Pdu::parse(rules, said.get().as_bytes()).unwrap();
    let redaction = signed("m.room.redaction", json!({ "redacts": said.event_id() }));
    let taken = a.receive(server_name!("b.example"), vec![redaction]).await.remove(0);
    let redaction = taken.event_id.unwrap();
    assert_eq!(status(a, id, &redaction).await, Status::Accepted);
    (said, redaction)
}

async fn is_redacted(rooms: &Rooms, id: &RoomId, event: &EventId) -> bool {
    let view = rooms.view(id).await.unwrap();
    let num = view.reader.event_num(view.nid, event).await.unwrap().unwrap();
    view.load_one(num).await.unwrap().is_redacted()
}

#[tokio::test]
async fn a_redaction_that_is_refused_after_all_redacts_nothing_that_comes_later() {
    let net = Net::default();
    let (a, _, id) = net.couple(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let (said, redaction) = redacted_before_it_comes(&a, &id).await;
    amend(&a, &id, &redaction, |meta| meta.status = Status::Rejected).await;
    a.receive(server_name!("b.example"), vec![said.to_raw()]).await.remove(0).result.unwrap();
    assert!(!is_redacted(&a, &id, said.event_id()).await);
}

#[tokio::test]
async fn a_redaction_that_comes_first_redacts_what_comes_without_a_place() {
    let net = Net::default();
    let (a, _, id) = net.couple(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let (said, _) = redacted_before_it_comes(&a, &id).await;
    let proven = a.0.check_one(&RoomVersionRules::V11, said.clone()).await.unwrap();
    a.0.store_outliers(&id, Outliers::from(vec![proven])).await.unwrap();
    assert_eq!(status(&a, &id, said.event_id()).await, Status::Outlier);
    assert!(is_redacted(&a, &id, said.event_id()).await);
    a.receive(server_name!("b.example"), vec![said.to_raw()]).await.remove(0).result.unwrap();
    assert_eq!(status(&a, &id, said.event_id()).await, Status::Accepted);
    assert!(is_redacted(&a, &id, said.event_id()).await);
}
