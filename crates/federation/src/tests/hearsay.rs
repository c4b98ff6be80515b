//! What a member's server says of others: of the state before their events, of what they wrote, of how the room began.

use axum::body::Body;
use chappe_rooms::Draft;
use chappe_rules::Pdu;
use chappe_store::Status;
use chappe_world::FakeNet;
use ruma::{
    OwnedEventId, OwnedUserId, RoomVersionId,
    api::client::room::create_room::v3::{Request as CreateRoom, RoomPreset},
};
use serde_json::{Value, json};

use super::{
    Server, config,
    families::is_redacted,
    lies::{MALLORY, NOBODYS, body, founded, let_in, news, open_room, shown},
    peer::{Peer, Seat, raw},
};

const HUGO: &str = "@hugo:h.example";

/// A room of Alice's with Mallory, who came first, and Hugo, who has power.
struct Scene {
    a: Server,
    evil: Peer,
    mallory: Seat,
    honest: Peer,
    hugo: Seat,
}

async fn scene(net: &FakeNet) -> Scene {
    let a = Server::start(net, "a.example", 1, config());
    let (evil, honest) = (Peer::start(net, "evil.example", 6), Peer::start(net, "h.example", 7));
    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::PublicChat);
    request.room_version = Some(RoomVersionId::V11);
    let levels = json!({ "users": { "@alice:a.example": 100, HUGO: 100 } });
    request.power_level_content_override = serde_json::from_value(levels).ok();
    let room = a.rooms.create(&a.actor("alice"), request).await.unwrap();
    for peer in [&evil, &honest] {
        peer.answer(|uri| uri.contains("/send/").then(taken)?);
    }
    let mallory = evil.join(&a, &room, MALLORY).await;
    let hugo = honest.join(&a, &room, HUGO).await;
    Scene { a, evil, mallory, honest, hugo }
}

impl Scene {
    /// A topic that Hugo sets.
    fn topic(&self, topic: &str, prev: &str, depth: u64) -> Pdu {
        let mut event = self.hugo.event("m.room.topic", json!({ "topic": topic }), &[prev], depth);
        event["state_key"] = json!("");
        self.honest.sign(self.hugo.rules, event)
    }

    fn says(&self, what: &str, prev: &str, depth: u64) -> Pdu {
        self.honest.message(&self.hugo, what, &[prev], depth)
    }

    /// The event as nothing is left of it but what its signature covers.
    fn blank(&self, pdu: &Pdu) -> Pdu {
        let mut event = raw(pdu);
        event["content"]["body"] = json!("changed");
        Pdu::parse(self.hugo.rules, event.to_string().as_bytes()).unwrap()
    }

    /// From now on Mallory's server has these events before its news, others one by one, and a state that once was.
    fn lie(&self, before: &[Pdu], single: &[Pdu], seat: &Seat) {
        let raws = |pdus: &[Pdu]| pdus.iter().map(raw).collect::<Vec<_>>();
        let before = json!({ "events": raws(before) });
        let single = json!({ "origin": "x", "origin_server_ts": 1, "pdus": raws(single) });
        let state = state_of(seat);
        self.evil.answer(move |uri| match uri {
            uri if uri.contains("/send/") => taken(),
            uri if uri.contains("/get_missing_events/") => body(&before),
            uri if uri.contains("/state_ids/") => body(&state),
            uri if uri.contains("/event/") => body(&single),
            _ => None,
        });
    }
}

/// A user of `a` in the room, and the join.
struct Bob {
    user: OwnedUserId,
    join: OwnedEventId,
}

impl Scene {
    async fn has_bob_in(&self) -> Bob {
        let Self { a, hugo, .. } = self;
        let bob = a.actor("bob");
        a.rooms.join(&bob, &hugo.room, Vec::new(), serde_json::Map::new()).await.unwrap();
        let join = a.current(&hugo.room, "m.room.member", bob.user.as_str()).await;
        let join = Pdu::parse(hugo.rules, join.to_string().as_bytes()).unwrap();
        Bob { user: bob.user, join: join.event_id().to_owned() }
    }
}

impl Bob {
    fn kick(&self, (peer, seat): (&Peer, &Seat), prev: &str) -> Pdu {
        let mut event =
            seat.event("m.room.member", json!({ "membership": "leave" }), &[prev], seat.depth + 50);
        event["state_key"] = json!(self.user);
        event["auth_events"].as_array_mut().unwrap().push(json!(self.join));
        peer.sign(seat.rules, event)
    }
}

/// The answer to a transaction: without it a server is left alone for a while.
fn taken() -> Option<Body> {
    body(&json!({ "pdus": {} }))
}

/// What the room was like once the user had joined.
fn state_of(seat: &Seat) -> Value {
    json!({ "pdu_ids": seat.state.iter().chain([&seat.join]).collect::<Vec<_>>(), "auth_chain_ids": [] })
}

async fn topic(a: &Server, seat: &Seat) -> Value {
    a.current(&seat.room, "m.room.topic", "").await["content"]["topic"].clone()
}

async fn status(a: &Server, event: &OwnedEventId) -> Option<Status> {
    let reader = a.store.read();
    let (nid, num) = reader.event_address(event).await.unwrap()?;
    Some(reader.event_meta(nid, num).await.unwrap().status)
}

#[tokio::test(start_paused = true)]
async fn a_lie_about_the_state_does_not_refuse_others_events_for_good() {
    for singly in [false, true] {
        let net = FakeNet::new();
        let scene = scene(&net).await;
        let Scene { a, evil, mallory, honest, hugo } = &scene;
        let said = scene.says("said", hugo.join.as_str(), hugo.depth + 1);
        let set = scene.topic("set", said.event_id().as_str(), hugo.depth + 2);
        let single = if singly { vec![said.clone()] } else { Vec::new() };
        scene.lie(std::slice::from_ref(&set), &single, mallory);
        // What is known of what was before the one that is given counts beside the lie.
        let is_taken = news(a, (evil, mallory), "on top", set.event_id().as_str()).await;
        assert_eq!((is_taken, topic(a, hugo).await == "set"), (singly, singly));
        honest.send(a, "1", &[said, set]).await;
        assert_eq!(topic(a, hugo).await, "set", "{singly}");
        assert!(shown(a, &hugo.room).await.contains(&"said".to_owned()), "{singly}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_lie_about_the_state_is_judged_by_what_its_own_server_says() {
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let Scene { a, evil, mallory, honest, hugo } = &scene;
    let said = scene.says("said", hugo.join.as_str(), hugo.depth + 1);
    let lying = evil.message(mallory, "lying", &[said.event_id().as_str()], hugo.depth + 2);
    scene.lie(std::slice::from_ref(&lying), &[], mallory);
    assert!(news(a, (evil, mallory), "on top", lying.event_id().as_str()).await);
    let set = scene.topic("set", lying.event_id().as_str(), hugo.depth + 3);
    let state = state_of(hugo);
    honest.answer(move |uri| uri.contains("/state_ids/").then(|| body(&state))?);
    honest.send(a, "1", &[said, set]).await;
    assert_eq!(topic(a, hugo).await, "set");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_one_server_tells_is_never_that_of_the_room_by_itself() {
    for way in ["beside", "news", "history"] {
        let net = FakeNet::new();
        let scene = scene(&net).await;
        let Scene { a, evil, mallory, honest, hugo } = &scene;
        let set = scene.topic("set", hugo.join.as_str(), hugo.depth + 1);
        honest.send(a, "1", std::slice::from_ref(&set)).await;
        let set = set.event_id().as_str();
        let withheld = evil.message(mallory, "withheld", &[set], hugo.depth + 2);
        let withheld_id = withheld.event_id().as_str();
        let prev = if way == "beside" { vec![set, NOBODYS] } else { vec![withheld_id] };
        let lying = evil.message(mallory, "lying", &prev, hugo.depth + 3);
        scene.lie(std::slice::from_ref(&lying), &[], mallory);
        assert!(news(a, (evil, mallory), "on top", lying.event_id().as_str()).await, "{way}");
        if way == "news" {
            evil.send(a, "2", std::slice::from_ref(&withheld)).await;
        }
        let backfill = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw(&withheld)] });
        evil.answer(move |uri| match uri {
            uri if uri.contains("/send/") => taken(),
            uri if uri.contains("/backfill/") => body(&backfill),
            _ => None,
        });
        if way == "history" {
            assert_eq!(a.rooms.fetch_older(&hugo.room, 10).await.unwrap(), 1);
        }
        assert_eq!(topic(a, hugo).await, "set", "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_has_one_beginning() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    let first = founded(&evil, MALLORY, json!({ "room_version": "11" }));
    let create = json!({ "room_version": "11", "m.federate": false });
    let other = founded(&evil, "@x:evil.example", create);
    // Not even beside the state of a join.
    let_in(&evil, &first, &[&first[..], &other[..1]].concat());
    let room = first[0].room_id().to_owned();
    let join = async || {
        a.rooms.join(&a.actor("alice"), &room, vec![evil.name.clone()], serde_json::Map::new()).await
    };
    join().await.unwrap();
    assert!(!matches!(status(&a, &other[0].event_id().to_owned()).await, Some(Status::Outlier)));

    let ids: Vec<OwnedEventId> = first.iter().map(|pdu| pdu.event_id().to_owned()).collect();
    let seat = Seat {
        room: room.clone(),
        user: MALLORY.to_owned(),
        rules: chappe_rules::version::rules(&RoomVersionId::V11).unwrap(),
        join: ids[1].clone(),
        depth: 6,
        auth: json!(ids[..3]),
        state: ids,
    };
    for told in [other.clone(), [&first[..], &other[..1]].concat()] {
        let given = evil.message(&seat, &format!("given {}", told.len()), &[NOBODYS], 9);
        let ids: Vec<OwnedEventId> = told.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let ids = json!({ "pdu_ids": ids, "auth_chain_ids": [] });
        let pdus: Vec<Value> = told.iter().map(raw).collect();
        let (full, events) =
            (json!({ "pdus": pdus, "auth_chain": pdus }), json!({ "events": [raw(&given)] }));
        evil.answer(move |uri| match uri {
            uri if uri.contains("/get_missing_events/") => body(&events),
            uri if uri.contains("/state_ids/") => body(&ids),
            uri if uri.contains("/state/") => body(&full),
            _ => None,
        });
        let what = format!("news {}", told.len());
        news(&a, (&evil, &seat), &what, given.event_id().as_str()).await;
        assert_eq!(a.current(&seat.room, "m.room.create", "").await["sender"], MALLORY, "{what}");
        let alice = a.current(&seat.room, "m.room.member", "@alice:a.example").await;
        assert_eq!(alice["content"]["membership"], "join", "{what}");
    }
    assert_eq!(status(&a, &other[0].event_id().to_owned()).await, Some(Status::Rejected));
    // Nor when somebody comes back.
    a.rooms.leave(&a.actor("alice"), &room, None).await.unwrap();
    tokio::time::advance(std::time::Duration::from_mins(1)).await;
    let_in(&evil, &other, &other);
    join().await.unwrap_err();
    let_in(&evil, &first, &first);
    join().await.unwrap();
}

/// Depth is what a server claims: one that claims the most leaves all that follow with the same.
#[tokio::test(start_paused = true)]
async fn events_of_one_depth_are_taken_in_their_order() {
    const DEEPEST: u64 = (1 << 53) - 1;
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let Scene { a, evil, mallory, .. } = &scene;
    let mut chain = vec![evil.message(mallory, "0", &[mallory.join.as_str()], DEEPEST)];
    for n in 1..12 {
        let prev = chain[n - 1].event_id().to_owned();
        chain.push(evil.message(mallory, &n.to_string(), &[prev.as_str()], DEEPEST));
    }
    let raws: Vec<Value> = chain.iter().map(raw).collect();
    let given = json!({ "events": raws });
    evil.answer(move |uri| uri.contains("/get_missing_events/").then(|| body(&given))?);
    assert!(news(a, (evil, mallory), "on top", chain[11].event_id().as_str()).await);
    let mut said: Vec<String> = (0..12).map(|n| n.to_string()).collect();
    said.push("on top".to_owned());
    assert_eq!((shown(a, &mallory.room).await, evil.asked("/state")), (said, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_blanks_what_others_say() {
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let Scene { a, evil, honest, hugo, .. } = &scene;
    let one = scene.says("one", hugo.join.as_str(), hugo.depth + 1);
    let two = scene.says("two", one.event_id().as_str(), hugo.depth + 2);
    let blank = [scene.blank(&one), scene.blank(&two)];
    assert_eq!(blank[1].event_id(), two.event_id());
    evil.send(a, "1", &blank).await;
    evil.send(a, "2", &blank[..1]).await;
    assert_eq!(status(a, &one.event_id().to_owned()).await, None);
    honest.send(a, "1", &[one, two]).await;
    assert_eq!(shown(a, &hugo.room).await, ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_blank_is_asked_of_its_own_server() {
    for (history, whole) in [(false, true), (true, true), (false, false), (true, false)] {
        let net = FakeNet::new();
        let scene = scene(&net).await;
        let Scene { a, evil, mallory, honest, hugo } = &scene;
        let one = scene.says("one", hugo.join.as_str(), hugo.depth + 1);
        let two = evil.message(mallory, "two", &[one.event_id().as_str()], hugo.depth + 2);
        let blank = scene.blank(&one);
        let given = if history { vec![two.clone()] } else { vec![blank.clone(), two.clone()] };
        let (given, state) =
            (json!({ "events": given.iter().map(raw).collect::<Vec<_>>() }), state_of(mallory));
        let backfill = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw(&blank)] });
        evil.answer(move |uri| match uri {
            uri if uri.contains("/get_missing_events/") => body(&given),
            uri if uri.contains("/state_ids/") => body(&state),
            uri if uri.contains("/backfill/") => body(&backfill),
            _ => taken(),
        });
        // Another event under its id is none.
        let answer = if whole { raw(&one) } else { raw(&two) };
        let answer = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [answer] });
        honest.answer(move |uri| if uri.contains("/event/") { body(&answer) } else { taken() });
        assert!(news(a, (evil, mallory), "three", two.event_id().as_str()).await);
        if history {
            assert_eq!(a.rooms.fetch_older(&hugo.room, 10).await.unwrap(), 1);
        }
        let said = if whole { vec!["one", "two", "three"] } else { vec!["two", "three"] };
        assert_eq!(shown(a, &hugo.room).await, said, "{history}");
        assert_eq!(status(a, &one.event_id().to_owned()).await, Some(Status::Accepted));
        assert_eq!(honest.asked("/event/"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_in_vain_is_not_asked_for_again_at_once() {
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let Scene { a, evil, mallory, honest, hugo } = &scene;
    let one = scene.says("one", NOBODYS, hugo.depth + 1);
    let given = json!({ "events": [raw(&scene.blank(&one))] });
    evil.answer(move |uri| uri.contains("/get_missing_events/").then(|| body(&given))?);
    for (what, minutes, asked) in [("two", 0, 1), ("three", 1, 1), ("four", 10, 2)] {
        tokio::time::advance(std::time::Duration::from_mins(minutes)).await;
        assert!(!news(a, (evil, mallory), what, one.event_id().as_str()).await);
        assert_eq!(honest.asked("/event/"), asked, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_redacted_is_not_asked_for() {
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let Scene { a, evil, mallory, honest, hugo } = &scene;
    let one = scene.says("one", hugo.join.as_str(), hugo.depth + 1);
    let one_id = one.event_id().as_str();
    let redaction = json!({ "redacts": one_id });
    let redaction = hugo.event("m.room.redaction", redaction, &[one_id], hugo.depth + 2);
    let redaction = honest.sign(hugo.rules, redaction);
    let given = json!({ "events": [raw(&scene.blank(&one)), raw(&redaction)] });
    evil.answer(move |uri| uri.contains("/get_missing_events/").then(|| body(&given))?);
    assert!(news(a, (evil, mallory), "two", redaction.event_id().as_str()).await);
    assert_eq!((shown(a, &hugo.room).await, honest.asked("/event/")), (vec!["two".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_redacted_here_is_not_asked_for_and_stays_so() {
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let Scene { a, evil, mallory, honest, hugo } = &scene;
    let one = scene.says("one", hugo.join.as_str(), hugo.depth + 1);
    let two = evil.message(mallory, "two", &[one.event_id().as_str()], hugo.depth + 2);
    scene.lie(std::slice::from_ref(&two), std::slice::from_ref(&one), hugo);
    assert!(news(a, (evil, mallory), "three", two.event_id().as_str()).await);
    let target = one.event_id().to_owned();
    assert_eq!(status(a, &target).await, Some(Status::Outlier));
    a.rooms.send(&a.actor("alice"), &hugo.room, Draft::redaction(&target, None), None).await.unwrap();
    let backfill = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw(&scene.blank(&one))] });
    evil.answer(move |uri| if uri.contains("/backfill/") { body(&backfill) } else { taken() });
    assert_eq!(a.rooms.fetch_older(&hugo.room, 10).await.unwrap(), 1);
    assert_eq!(status(a, &target).await, Some(Status::Accepted));
    assert!(is_redacted(a, &hugo.room, &target).await);
    assert_eq!(honest.asked("/event/"), 0);
}

/// A state that is told may leave out the whole room: a row for each member, for good.
#[tokio::test(start_paused = true)]
async fn a_server_has_so_much_written_of_what_it_tells_and_no_more() {
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let Scene { a, evil, mallory, hugo, .. } = &scene;
    for n in 0..20 {
        let draft = Draft::state("x.test", n.to_string(), serde_json::Map::new());
        a.rooms.send(&a.actor("alice"), &hugo.room, draft, None).await.unwrap();
    }
    a.rooms.reconfigure(chappe_rooms::Config { told_changes_per_hour: 8, ..Default::default() });
    let lines = async || {
        let reader = a.store.read();
        let nid = reader.room_nid(&hugo.room).await.unwrap().unwrap();
        reader.room_head(nid).await.unwrap().next_line
    };
    let tells = async |what: &str| {
        let given = evil.message(mallory, what, &[NOBODYS], hugo.depth + 30);
        scene.lie(std::slice::from_ref(&given), &[], mallory);
        news(a, (evil, mallory), &format!("on {what}"), given.event_id().as_str()).await
    };
    let at_first = lines().await;
    assert!(tells("first").await, "an old state may be far from the current one");
    let written = lines().await;
    assert!(written > at_first);
    assert!(!tells("second").await);
    assert_eq!((lines().await, evil.asked("/state_ids/")), (written, 0));
    // The second is tried again for an hour, in vain.
    tokio::time::sleep(std::time::Duration::from_hours(3)).await;
    assert!(tells("third").await, "it was paid for");
}

/// As servers do that give nothing to those who are out.
#[tokio::test(start_paused = true)]
async fn who_is_put_out_is_out_though_nobody_says_what_was_before() {
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let bob = scene.has_bob_in().await;
    let Scene { a, evil, mallory, honest, hugo } = &scene;
    let is = async || {
        a.current(&hugo.room, "m.room.member", bob.user.as_str()).await["content"]["membership"].clone()
    };
    evil.send(a, "1", &[bob.kick((evil, mallory), NOBODYS)]).await;
    assert_eq!(is().await, "join", "by somebody who may not");
    let kick = bob.kick((honest, hugo), NOBODYS);
    honest.send(a, "1", std::slice::from_ref(&kick)).await;
    assert_eq!(is().await, "leave");
    assert_eq!(status(a, &kick.event_id().to_owned()).await, Some(Status::Accepted));
    // The room goes on.
    assert!(news(a, (honest, hugo), "after it", kick.event_id().as_str()).await);
    a.say("alice", &hugo.room, "as well").await;
    assert_eq!(shown(a, &hugo.room).await, ["after it", "as well"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_withheld_before_somebody_is_put_out_is_had_from_others() {
    let net = FakeNet::new();
    let scene = scene(&net).await;
    let bob = scene.has_bob_in().await;
    let Scene { a, mallory, honest, hugo, .. } = &scene;
    let set = scene.topic("set", hugo.join.as_str(), hugo.depth + 1);
    scene.lie(&[], std::slice::from_ref(&set), mallory);
    let kick = bob.kick((honest, hugo), set.event_id().as_str());
    honest.send(a, "1", std::slice::from_ref(&kick)).await;
    assert_eq!(topic(a, hugo).await, "set");
    let is = a.current(&hugo.room, "m.room.member", bob.user.as_str()).await;
    assert_eq!(is["content"]["membership"], "leave");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_here_leaves_no_hole_in_a_state() {
    for comes in [true, false] {
        let net = FakeNet::new();
        let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
        let room = open_room(&a, "11", None).await;
        for n in 0..9 {
            let draft = Draft::state("x.n", n.to_string(), serde_json::Map::new());
            a.rooms.send(&a.actor("alice"), &room, draft, None).await.unwrap();
        }
        let seat = evil.join(&a, &room, MALLORY).await;
        let mut odd =
            seat.event("m.room.name", json!({ "name": "odd" }), &[seat.join.as_str()], seat.depth + 1);
        (odd["state_key"], odd["depth"]) = (json!(""), json!(-1));
        let odd = evil.signed(seat.rules, &odd).unwrap();
        let text = odd.to_string();
        assert!(Pdu::parse(seat.rules, text.as_bytes()).is_err());
        let id = chappe_rules::pdu::id_of(seat.rules, text.as_bytes()).unwrap();
        let given = evil.message(&seat, "given", &[NOBODYS], seat.depth + 2);
        let ids: Vec<&OwnedEventId> = seat.state.iter().chain([&seat.join, &id]).collect();
        let ids = json!({ "pdu_ids": ids, "auth_chain_ids": [] });
        let full = json!({ "pdus": if comes { vec![odd] } else { Vec::new() }, "auth_chain": [] });
        let events = json!({ "events": [raw(&given)] });
        evil.answer(move |uri| match uri {
            uri if uri.contains("/get_missing_events/") => body(&events),
            uri if uri.contains("/state_ids/") => body(&ids),
            uri if uri.contains("/state/") => body(&full),
            _ => None,
        });
        assert_eq!(news(&a, (&evil, &seat), "on top", given.event_id().as_str()).await, comes);
        assert_eq!(shown(&a, &room).await, if comes { vec!["given", "on top"] } else { Vec::new() });
    }
}
