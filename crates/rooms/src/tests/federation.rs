//! Several servers: joins, invites, knocks, forks that converge, gaps, history.

use std::time::Duration;

use chappe_accounts::{NewUser, UserKind};
use chappe_rules::Pdu;
use chappe_store::{LogEntry, Membership, Status};
use ruma::{OwnedEventId, RoomId, room_version_rules::RoomVersionRules, server_name};
use serde_json::{json, value::RawValue};

use super::{
    malformed::{parsed, signed_in},
    net::{
        ALICE, BOB, CAROL, Net, actor, bodies, join, membership, noted, raw, room, say, state, status, text,
        user, whole_state,
    },
};
use crate::{
    Actor, Change, Draft, Error, Rooms, Standing,
    receive::{Budget, Checked},
};

async fn joined(net: &Net, version: &str) -> (Rooms, Rooms, ruma::OwnedRoomId) {
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "room_version": version })).await;
    say(&a, ALICE, &id, "before").await;
    join(&b, BOB, &id).await;
    net.deliver().await;
    (a, b, id)
}

async fn same_state(a: &Rooms, b: &Rooms, id: &RoomId) {
    assert_eq!(whole_state(a, id).await, whole_state(b, id).await);
}

#[tokio::test]
async fn a_room_is_joined_and_talked_in_from_both_sides() {
    for version in crate::VERSIONS {
        let net = Net::default();
        let (a, b, id) = joined(&net, version.as_str()).await;
        assert_eq!(membership(&a, &id, BOB).await, Some("join"));
        same_state(&a, &b, &id).await;
        say(&b, BOB, &id, "from b").await;
        net.deliver().await;
        say(&a, ALICE, &id, "from a").await;
        net.deliver().await;
        assert_eq!(bodies(&a, &id).await, ["before", "from b", "from a"]);
        assert_eq!(bodies(&b, &id).await, ["from b", "from a"]);
        b.send(&actor(BOB), &id, state("m.room.topic", "", &json!({ "topic": "no" })), None)
            .await
            .unwrap_err();
        a.send(&actor(ALICE), &id, state("m.room.topic", "", &json!({ "topic": "yes" })), None)
            .await
            .unwrap();
        net.deliver().await;
        same_state(&a, &b, &id).await;
    }
}

#[tokio::test]
async fn what_was_redacted_of_another_servers_event_is_had_and_not_pushed() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    let c = net.server("c.example", 3);
    join(&c, CAROL, &id).await;
    let came = whole_state(&a, &id).await[&("m.room.member".to_owned(), CAROL.to_owned())].clone();
    a.send(&actor(ALICE), &id, Draft::redaction(&came, None), None).await.unwrap();
    let view = a.view(&id).await.unwrap();
    let num = view.reader.event_num(view.nid, &came).await.unwrap().unwrap();
    let pushed = a.outgoing(view.nid, num).await;
    assert!(matches!(pushed, Err(Error::NotFound(_))), "{pushed:?}");
    drop(view);
    net.deliver().await;
    assert_eq!(membership(&b, &id, CAROL).await, Some("join"));
    same_state(&a, &b, &id).await;
}

#[tokio::test]
async fn what_a_last_leave_rests_on_is_given_by_who_has_left() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    let c = net.server("c.example", 3);
    join(&c, CAROL, &id).await;
    net.deliver().await;
    say(&a, ALICE, &id, "not for b").await;
    net.lose(&a, "b.example").await;
    net.deliver().await;
    c.leave(&actor(CAROL), &id, None).await.unwrap();
    net.deliver().await;
    assert_eq!(membership(&b, &id, CAROL).await, Some("leave"));
    assert_eq!(bodies(&b, &id).await, ["not for b"]);
}

#[tokio::test]
async fn older_history_is_fetched() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    assert_eq!(bodies(&b, &id).await, Vec::<String>::new());
    let log = async || b.store().read().log_after(chappe_store::Position(0), 10_000).await.unwrap();
    let came = |what: &LogEntry| matches!(what, LogEntry::Members { .. });
    assert_eq!(log().await.iter().filter(|entry| came(&entry.what)).count(), 1, "a room with its members");
    assert!(b.fetch_older(&id, 50).await.unwrap() > 3);
    let nid = b.store().read().room_nid(&id).await.unwrap().unwrap();
    let rows = b.store().read().timeline_back(nid, i64::MAX, 100).await.unwrap();
    let placed = rows.iter().map(|row| row.ordinal).min().unwrap();
    let reaches = |what: &LogEntry| matches!(what, LogEntry::History { first, .. } if *first == placed);
    assert!(log().await.iter().any(|entry| reaches(&entry.what)), "followers hear of what was put in later");
    assert_eq!(bodies(&b, &id).await, ["before"]);
    assert_eq!(b.fetch_older(&id, 50).await.unwrap(), 0);
    same_state(&a, &b, &id).await;
}

#[tokio::test]
async fn what_was_redacted_stays_so_when_history_brings_its_place() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "room_version": "11" })).await;
    let name = state("m.room.name", "", &json!({ "name": "an insult" }));
    let name = a.send(&actor(ALICE), &id, name, None).await.unwrap();
    join(&b, BOB, &id).await;
    net.deliver().await;
    a.send(&actor(ALICE), &id, Draft::redaction(&name, None), None).await.unwrap();
    net.deliver().await;
    assert!(b.fetch_older(&id, 50).await.unwrap() > 3);
    let view = b.view(&id).await.unwrap();
    let name = view.current("m.room.name".into(), "").await.unwrap().unwrap();
    assert!(name.meta.ordinal.is_some() && name.is_redacted());
}

/// History ends with the event that created the room: nothing is asked for any more.
#[tokio::test]
async fn history_is_fetched_to_its_beginning() {
    for version in ["1", "6", "11", "12"] {
        let net = Net::default();
        let (a, b, id) = joined(&net, version).await;
        assert!(b.fetch_older(&id, 50).await.unwrap() > 3);
        let view = b.view(&id).await.unwrap();
        let gaps = view.reader.gaps_from(view.nid, i64::MIN, 1).await.unwrap();
        assert!(gaps.is_empty(), "version {version}");
        let first = view.reader.timeline_forward(view.nid, i64::MIN, 1).await.unwrap();
        let first = view.load_one(first[0].num).await.unwrap();
        assert_eq!(first.pdu.kind().to_string(), "m.room.create");
        assert_eq!(view.head.extremities.len(), 1);
        drop(view);
        same_state(&a, &b, &id).await;
    }
}

/// Servers once took what names more others than may be named today.
#[tokio::test]
async fn history_goes_on_before_an_event_that_names_many_others() {
    let (net, rules) = (Net::default(), &RoomVersionRules::V11);
    let (a, b, id) = joined(&net, "11").await;
    let first = say(&b, BOB, &id, "first").await;
    net.deliver().await;
    let base = parsed(&b, &id, &first).await;
    let made = |body: &str, depth: u32, prev: &[OwnedEventId]| -> Box<RawValue> {
        let mut event = base.clone();
        let content = json!({ "msgtype": "m.text", "body": body });
        for (field, value) in [("content", content), ("depth", json!(depth)), ("prev_events", json!(prev))] {
            event.insert(field.to_owned(), value.try_into().unwrap());
        }
        signed_in(rules, event)
    };
    let forks: Vec<Box<RawValue>> =
        (0..25).map(|n| made(&format!("fork {n}"), 50, std::slice::from_ref(&first))).collect();
    let taken = a.receive(server_name!("b.example"), forks).await;
    let forks: Vec<OwnedEventId> = taken.into_iter().map(|outcome| outcome.event_id.unwrap()).collect();
    let many = Pdu::parse_old(rules, made("of many", 51, &forks).get().as_bytes()).unwrap();
    let many = a.0.check_one(rules, many).await.unwrap();
    let many = Checked::from_handshake(server_name!("b.example"), many);
    a.0.take(many, &mut Budget::default()).await.unwrap();
    say(&a, ALICE, &id, "last").await;
    let c = net.server("c.example", 3);
    join(&c, CAROL, &id).await;
    assert!(c.fetch_older(&id, 100).await.unwrap() > 25);
    let (told, all) = (bodies(&c, &id).await, bodies(&a, &id).await);
    assert_eq!((told.len(), told.first(), told.last()), (all.len(), all.first(), all.last()));
    assert!(told.contains(&"of many".to_owned()), "{told:?}");
    let view = c.view(&id).await.unwrap();
    assert!(view.reader.gaps_from(view.nid, i64::MIN, 1).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refuses_to_tell_it_may_tell_a_little_later() {
    let (net, rules) = (Net::default(), &RoomVersionRules::V11);
    let (a, b, id) = joined(&net, "11").await;
    net.deliver().await;
    let missed = say(&a, ALICE, &id, "missed").await;
    let said = say(&a, ALICE, &id, "said").await;
    let said = Pdu::parse(rules, raw(&a, &id, &said).await.get().as_bytes()).unwrap();
    let said = b.0.check_one(rules, said).await.unwrap();
    let take = async || {
        let checked = Checked::from_handshake(a.server(), said.clone());
        b.0.take(checked, &mut Budget { events: 10, states: 1, ..Budget::default() }).await
    };
    net.untold.lock().insert((a.server().to_owned(), missed));
    let refused = take().await;
    assert!(matches!(refused, Err(Error::Peer(_))), "{refused:?}");
    net.untold.lock().clear();
    let too_soon = take().await;
    assert!(matches!(too_soon, Err(Error::HostilePeer(_))), "{too_soon:?}");
    tokio::time::advance(Duration::from_mins(2)).await;
    take().await.unwrap();
    assert_eq!(bodies(&b, &id).await, ["said"]);
}

#[tokio::test]
async fn an_invite_crosses_servers_and_is_taken_or_turned_down() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    for taken in [true, false] {
        let id = room(&a, ALICE, json!({ "invite": [BOB] })).await;
        assert_eq!(membership(&a, &id, BOB).await, Some("invite"));
        let invite = noted(&b, &id, BOB).await.unwrap();
        assert_eq!(invite.kind(), Some(Membership::Invite));
        assert!(!invite.state.is_empty());
        if taken {
            b.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
            same_state(&a, &b, &id).await;
            assert!(noted(&b, &id, BOB).await.is_none());
        } else {
            b.leave(&actor(BOB), &id, None).await.unwrap();
            assert_eq!(membership(&a, &id, BOB).await, Some("leave"));
            b.forget(&user(BOB), &id).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_invite_is_turned_down_even_if_nobody_can_be_told() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "invite": [BOB] })).await;
    net.down.lock().insert("a.example".try_into().unwrap());
    b.leave(&actor(BOB), &id, None).await.unwrap();
    assert_eq!(noted(&b, &id, BOB).await.unwrap().kind(), Some(Membership::Leave));
}

#[tokio::test]
async fn a_withdrawn_invite_is_gone() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "invite": [BOB] })).await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Kick, None).await.unwrap();
    net.deliver().await;
    assert_eq!(noted(&b, &id, BOB).await.unwrap().kind(), Some(Membership::Leave));
}

#[tokio::test]
async fn knocking_on_another_servers_door() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let id = room(&a, ALICE, json!({ "initial_state": [rule] })).await;
    let via = vec!["a.example".try_into().unwrap()];
    b.knock(&actor(BOB), &id, via.clone(), None).await.unwrap();
    assert_eq!(membership(&a, &id, BOB).await, Some("knock"));
    assert!(matches!(b.join(&actor(BOB), &id, via, serde_json::Map::new()).await, Err(Error::Peer(_))));
    a.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    b.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    same_state(&a, &b, &id).await;
}

#[tokio::test]
async fn a_restricted_room_is_joined_over_federation() {
    let net = Net::default();
    let (a, b, club) = joined(&net, "11").await;
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rule =
        json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } });
    let id = room(&a, ALICE, json!({ "initial_state": [rule] })).await;
    let via = vec!["a.example".try_into().unwrap()];
    b.join(&actor(BOB), &id, via.clone(), serde_json::Map::new()).await.unwrap();
    same_state(&a, &b, &id).await;
    let c = net.server("c.example", 3);
    assert!(matches!(c.join(&actor(CAROL), &id, via, serde_json::Map::new()).await, Err(Error::Peer(_))));
}

#[tokio::test]
async fn leaving_and_coming_back() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    assert_eq!(membership(&a, &id, BOB).await, Some("leave"));
    say(&a, ALICE, &id, "meanwhile").await;
    a.send(&actor(ALICE), &id, state("m.room.topic", "", &json!({ "topic": "new" })), None).await.unwrap();
    assert_eq!(net.deliver().await, 0);
    b.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    same_state(&a, &b, &id).await;
    say(&b, BOB, &id, "again").await;
    net.deliver().await;
    assert_eq!(bodies(&a, &id).await.last().unwrap(), "again");
}

/// Both sides write while they do not hear of each other.
async fn part_and_heal(version: &str) {
    let net = Net::default();
    let (a, b, id) = joined(&net, version).await;
    let levels = json!({ "users": { ALICE: 100, BOB: 100 } });
    let levels = if version == "12" { json!({ "users": { BOB: 100 } }) } else { levels };
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    net.deliver().await;
    let topic = |topic: &str| state("m.room.topic", "", &json!({ "topic": topic }));
    for (rooms, who, word) in [(&a, ALICE, "a"), (&b, BOB, "b")] {
        say(rooms, who, &id, word).await;
        rooms.send(&actor(who), &id, topic(word), None).await.unwrap();
        let name = state("m.room.name", "", &json!({ "name": word }));
        rooms.send(&actor(who), &id, name, None).await.unwrap();
        let own = state("x", who, &json!({ "of": word }));
        rooms.send(&actor(who), &id, own, None).await.unwrap();
        say(rooms, who, &id, word).await;
    }
    a.change(&actor(ALICE), &id, &user(CAROL), Change::Ban, None).await.unwrap();
    net.deliver().await;
    same_state(&a, &b, &id).await;
    say(&a, ALICE, &id, "merged").await;
    net.deliver().await;
    say(&b, BOB, &id, "heard").await;
    net.deliver().await;
    same_state(&a, &b, &id).await;
    for rooms in [&a, &b] {
        let view = rooms.view(&id).await.unwrap();
        assert_eq!(view.head.extremities.len(), 1, "{version}");
        assert!(whole_state(rooms, &id).await.contains_key(&("x".to_owned(), BOB.to_owned())));
        assert_eq!(bodies(rooms, &id).await.iter().filter(|body| body.len() == 1).count(), 4);
    }
}

#[tokio::test]
async fn forks_converge_in_every_algorithm() {
    for version in ["6", "10", "11", "12"] {
        part_and_heal(version).await;
    }
}

#[tokio::test]
async fn what_a_banned_user_says_meanwhile_is_soft_failed() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    a.change(&actor(ALICE), &id, &user(BOB), Change::Ban, None).await.unwrap();
    let late = say(&b, BOB, &id, "you cannot stop me").await;
    net.deliver().await;
    assert_eq!(status(&a, &id, &late).await, Status::SoftFailed);
    assert!(!bodies(&a, &id).await.contains(&"you cannot stop me".to_owned()));
    assert_eq!(membership(&b, &id, BOB).await, Some("ban"));
    same_state(&a, &b, &id).await;
}

#[tokio::test]
async fn a_gap_is_filled() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    for n in 0..29 {
        say(&a, ALICE, &id, &n.to_string()).await;
    }
    net.lose(&a, "b.example").await;
    say(&a, ALICE, &id, "29").await;
    net.deliver().await;
    assert_eq!(bodies(&b, &id).await, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn while_an_origin_is_away_others_give_what_it_said_before() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    let (away, c) = (server_name!("a.example").to_owned(), net.server("c.example", 3));
    join(&c, CAROL, &id).await;
    net.deliver().await;
    let mut said = Vec::new();
    for body in ["one", "two", "three"] {
        said.push(say(&a, ALICE, &id, body).await);
    }
    net.lose(&a, "b.example").await;
    let last = a.event_for(server_name!("b.example"), &said[2]).await.unwrap();
    let told = async || b.receive(&away, vec![last.clone()]).await.pop().unwrap().result;
    net.down.lock().insert(away.clone());
    let nobody_has_it = told().await;
    assert!(matches!(nobody_has_it, Err(Error::Unreachable)), "{nobody_has_it:?}");
    net.down.lock().clear();
    net.deliver().await;
    net.down.lock().insert(away.clone());
    let too_soon = told().await;
    assert!(matches!(too_soon, Err(Error::Unreachable)), "others are not asked all the time: {too_soon:?}");
    tokio::time::advance(Duration::from_mins(2)).await;
    told().await.unwrap();
    assert_eq!(bodies(&b, &id).await, ["one", "two", "three"]);
}

/// What could not be had of a server that was away is no fault of what rests on it.
#[tokio::test]
async fn an_event_whose_origin_was_away_is_taken_once_it_is_back() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    say(&a, ALICE, &id, "one").await;
    let two = say(&a, ALICE, &id, "two").await;
    net.lose(&a, "b.example").await;
    let (origin, two) =
        (server_name!("a.example"), a.event_for(server_name!("b.example"), &two).await.unwrap());
    let told = async || b.receive(origin, vec![two.clone()]).await.pop().unwrap().result;
    net.down.lock().insert(origin.to_owned());
    let away = told().await;
    assert!(matches!(away, Err(Error::Unreachable)), "{away:?}");
    net.down.lock().clear();
    told().await.unwrap();
    assert_eq!(bodies(&b, &id).await, ["one", "two"]);
}

#[tokio::test]
async fn a_long_silence_is_bridged_by_the_state() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    a.send(&actor(ALICE), &id, state("m.room.name", "", &json!({ "name": "n" })), None).await.unwrap();
    for n in 0..119 {
        say(&a, ALICE, &id, &n.to_string()).await;
    }
    net.lose(&a, "b.example").await;
    say(&a, ALICE, &id, "119").await;
    net.deliver().await;
    assert_eq!(bodies(&b, &id).await.last().unwrap(), "119");
    same_state(&a, &b, &id).await;
    assert!(b.fetch_older(&id, 100).await.unwrap() > 0);
}

#[tokio::test]
async fn redactions_cross_servers_in_either_order() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    let said = say(&a, ALICE, &id, "secret").await;
    net.deliver().await;
    a.send(&actor(ALICE), &id, Draft::redaction(&said, None), None).await.unwrap();
    net.deliver().await;
    assert!(bodies(&b, &id).await.is_empty());
    // The target comes last: the outbox is turned around.
    let said = say(&b, BOB, &id, "late").await;
    let redaction = b.send(&actor(BOB), &id, Draft::redaction(&said, None), None).await.unwrap();
    let from = ruma::server_name!("b.example");
    net.down.lock().insert(from.to_owned());
    assert!(a.receive(from, vec![raw(&b, &id, &redaction).await]).await[0].result.is_err());
    net.down.lock().clear();
    let outcomes = a.receive(from, vec![raw(&b, &id, &said).await]).await;
    assert!(outcomes[0].result.is_ok());
    net.deliver().await;
    assert!(!bodies(&a, &id).await.contains(&"late".to_owned()));
}

#[tokio::test]
async fn three_servers_hear_of_each_other() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    let c = net.server("c.example", 3);
    c.join(&actor(CAROL), &id, vec!["b.example".try_into().unwrap()], serde_json::Map::new()).await.unwrap();
    net.deliver().await;
    same_state(&a, &c, &id).await;
    same_state(&b, &c, &id).await;
    c.send(&actor(CAROL), &id, text("hello"), None).await.unwrap();
    net.deliver().await;
    assert_eq!(bodies(&a, &id).await.last().unwrap(), "hello");
}

#[tokio::test]
async fn guests_leave_when_another_server_shuts_them_out() {
    let net = Net::default();
    let (a, b, id) = joined(&net, "11").await;
    let new = NewUser { localpart: Some("gus".to_owned()), kind: UserKind::Guest, ..NewUser::default() };
    b.0.accounts.create_user(new).await.unwrap();
    let guest = Actor { standing: Standing::Guest, ..actor("@gus:b.example") };
    let access = async |what: &str| {
        let draft = state("m.room.guest_access", "", &json!({ "guest_access": what }));
        a.send(&actor(ALICE), &id, draft, None).await.unwrap();
        net.deliver().await;
    };
    access("can_join").await;
    b.join(&guest, &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    net.deliver().await;
    access("forbidden").await;
    b.dismiss_guests().await.unwrap();
    net.deliver().await;
    for rooms in [&a, &b] {
        assert_eq!(membership(rooms, &id, "@gus:b.example").await, Some("leave"));
        assert_eq!(membership(rooms, &id, BOB).await, Some("join"));
    }
    same_state(&a, &b, &id).await;
}

#[tokio::test]
async fn history_is_read_though_most_servers_are_away() {
    let net = Net::default();
    let a = net.server("a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "room_version": "12" })).await;
    let mut dead = vec!["a.example".to_owned()];
    for n in 2..6 {
        let name = format!("a{n}.example");
        join(&net.server(&name, n), &format!("@x:{name}"), &id).await;
        dead.push(name);
    }
    let living = net.server("living.example", 6);
    join(&living, "@lou:living.example", &id).await;
    net.deliver().await;
    say(&living, "@lou:living.example", &id, "before").await;
    net.deliver().await;
    let late = net.server("late.example", 7);
    join(&late, "@lea:late.example", &id).await;
    net.deliver().await;
    net.down.lock().extend(dead.into_iter().map(|name| name.try_into().unwrap()));
    assert!(late.fetch_older(&id, 50).await.unwrap() > 0);
    assert_eq!(bodies(&late, &id).await, ["before"]);
}

#[tokio::test]
async fn what_is_told_as_state_is_given_singly_too() {
    let net = Net::default();
    let (_a, b, id) = joined(&net, "11").await;
    let said = say(&b, BOB, &id, "hello").await;
    net.deliver().await;
    let (peer, stranger) = (server_name!("a.example"), server_name!("d.example"));
    let told = b.state_ids_for(peer, &id, &said).await.unwrap();
    let mut outliers = 0;
    for event in told.state.iter().chain(&told.auth_chain) {
        b.event_for(peer, event).await.unwrap();
        b.event_auth_for(peer, &id, event).await.unwrap();
        assert!(b.event_for(stranger, event).await.is_err());
        // What was before them is not known here.
        outliers += u32::from(b.state_ids_for(peer, &id, event).await.is_err());
    }
    assert!(outliers > 3);
}
