//! Events that rest on what is missing, on nothing, on each other.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use chappe_rules::Pdu;
use chappe_world::FakeNet;
use serde_json::{Value, json};

use super::{super::peer::raw, MALLORY, NOBODYS, body, news, open_room, seat, shown};

#[tokio::test(start_paused = true)]
async fn lies_about_a_gap_show_nothing_and_stop_nobody() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let other = open_room(&a, "11", None).await;
    let other = evil.join(&a, &other, MALLORY).await;
    let join = seat.join.as_str();
    let withheld = evil.message(&seat, "withheld", &[NOBODYS], seat.depth + 1);
    let mut forged = seat.event("m.room.message", json!({ "body": "forged" }), &[join], seat.depth + 1);
    forged["sender"] = json!("@alice:a.example");
    let forged = evil.sign(seat.rules, forged);
    let foreign = evil.message(&other, "foreign", &[other.join.as_str()], other.depth + 1);
    let mut unsigned = raw(&withheld);
    unsigned["signatures"] = json!({});
    let branch = |n: u64| evil.message(&seat, &format!("branch {n}"), &[join], seat.depth + n);
    let unrelated: Vec<Pdu> = (1..=50).map(branch).collect();
    let lies: [(&str, &Pdu, Vec<Value>); 6] = [
        ("nothing", &withheld, vec![]),
        ("no events", &withheld, vec![json!(1), json!({}), json!("x"), json!([]), Value::Null]),
        ("unsigned", &withheld, vec![unsigned]),
        ("forged", &forged, vec![raw(&forged)]),
        ("of another room", &foreign, vec![raw(&foreign)]),
        ("unrelated", &withheld, unrelated.iter().map(raw).collect()),
    ];
    for (what, missing, events) in lies {
        let state = json!({ "pdu_ids": seat.state, "auth_chain_ids": [] });
        evil.answer(move |uri| match uri {
            uri if uri.contains("/get_missing_events/") => body(&json!({ "events": events })),
            uri if uri.contains("/event/") => {
                body(&json!({ "origin": "x", "origin_server_ts": 1, "pdus": [events.first()] }))
            }
            uri if uri.contains("/state_ids/") => body(&state),
            _ => None,
        });
        assert!(!news(&a, (&evil, &seat), what, missing.event_id().as_str()).await, "{what}");
        assert!(!a.has(&missing.event_id().to_owned()).await, "{what}");
        assert!(evil.asked("/") < 10, "{what}: {} questions", evil.asked("/"));
        let good = format!("good after {what}");
        assert!(news(&a, (&evil, &seat), &good, join).await, "{what}");
        assert_eq!(shown(&a, &seat.room).await.last(), Some(&good));
    }
    for event in &unrelated {
        assert!(!a.has(&event.event_id().to_owned()).await);
    }
    assert!(shown(&a, &seat.room).await.iter().all(|body| body.starts_with("good")));
    assert!(shown(&a, &other.room).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_gap_without_end_is_followed_so_far() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    a.rooms.reconfigure(chappe_rooms::Config { missing_events_limit: 500, ..Default::default() });
    let mut chain = vec![evil.message(&seat, "0", &[NOBODYS], seat.depth + 1)];
    for n in 1..700 {
        let before = chain[n - 1].event_id().to_owned();
        chain.push(evil.message(&seat, &n.to_string(), &[before.as_str()], seat.depth + 1 + n as u64));
    }
    let top = chain[699].event_id().to_owned();
    let (raws, rounds): (Vec<Value>, _) = (chain.iter().map(raw).collect(), AtomicUsize::new(0));
    evil.answer(move |uri| {
        let round = uri.contains("/get_missing_events/").then(|| rounds.fetch_add(1, SeqCst))?;
        let end = raws.len().saturating_sub(round * 50);
        body(&json!({ "events": raws[end.saturating_sub(50)..end] }))
    });
    assert!(!news(&a, (&evil, &seat), "news", top.as_str()).await);
    assert!(evil.asked("/get_missing_events/") <= 10, "{} rounds", evil.asked("/get_missing_events/"));
    assert!(evil.asked("/state") <= 3, "{} states", evil.asked("/state"));
    assert!(shown(&a, &seat.room).await.is_empty());
    assert!(news(&a, (&evil, &seat), "good", seat.join.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn events_that_rest_on_each_other_are_not_taken() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "2").await;
    let named = |name: &str, prev: &str| {
        let mut event = seat.event("m.room.message", json!({ "body": name }), &[prev], seat.depth + 5);
        event["event_id"] = json!(format!("${name}:evil.example"));
        evil.sign(seat.rules, event)
    };
    let circle = [named("one", "$two:evil.example"), named("two", "$one:evil.example")];
    let raws: Vec<Value> = circle.iter().map(raw).collect();
    evil.answer(move |uri| uri.contains("/get_missing_events/").then(|| body(&json!({ "events": raws })))?);
    let news = named("news", "$one:evil.example");
    evil.send(&a, "1", &[news.clone(), circle[0].clone(), circle[1].clone()]).await;
    for event in circle.iter().chain([&news]) {
        assert!(!a.has(&event.event_id().to_owned()).await, "{} is kept", event.event_id());
    }
    assert!(shown(&a, &seat.room).await.is_empty());
    let good = evil.send(&a, "2", &[named("good", seat.join.as_str())]).await;
    assert_eq!(good["$good:evil.example"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_none_is_left_out_of_a_state() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "2").await;
    let named = |name: &str, prev: &str, depth: u64| {
        let mut event = seat.event("m.room.message", json!({ "body": name }), &[prev], seat.depth + depth);
        event["event_id"] = json!(format!("${name}:evil.example"));
        evil.sign(seat.rules, event)
    };
    let older = named("older", seat.join.as_str(), 1);
    let middle = named("middle", older.event_id().as_str(), 2);
    let news = named("news", middle.event_id().as_str(), 3);
    let mut state: Vec<Value> = seat.state.iter().chain([&seat.join]).map(|id| json!(id)).collect();
    state.extend([json!("$1:my_host"), json!("none"), json!(7), Value::Null]);
    let state = json!({ "pdu_ids": state, "auth_chain_ids": ["$2:my_host"] });
    let between = json!({ "events": [raw(&middle)] });
    let single = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw(&older)] });
    evil.answer(move |uri| match uri {
        uri if uri.contains("/get_missing_events/") => body(&between),
        uri if uri.contains("/state_ids/") => body(&state),
        uri if uri.contains("/event/") => body(&single),
        _ => None,
    });
    evil.send(&a, "1", &[news]).await;
    assert!(evil.asked("/state_ids/") > 0);
    assert_eq!(shown(&a, &seat.room).await, ["middle", "news"]);
}

#[tokio::test(start_paused = true)]
async fn of_an_event_it_is_told_that_it_is_wrongly_signed_or_changed_and_not_that_its_gap_was_not_given() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let mut forged = raw(&evil.message(&seat, "forged", &[seat.join.as_str()], seat.depth + 1));
    forged["signatures"]["evil.example"]["ed25519:k6"] = json!("A".repeat(86));
    let said = a.say("alice", &seat.room, "said").await;
    let mut changed: Value = {
        let reader = a.store.read();
        let (nid, num) = reader.event_address(&said).await.unwrap().unwrap();
        serde_json::from_str(&reader.pdu(nid, num).await.unwrap().json).unwrap()
    };
    changed["content"]["body"] = json!("changed");
    let gap = raw(&evil.message(&seat, "after a gap", &[NOBODYS], seat.depth + 1));
    for (txn, event, is_wrong) in [("1", forged, true), ("2", changed, true), ("3", gap, false)] {
        let event = Pdu::parse(seat.rules, event.to_string().as_bytes()).unwrap();
        let told = evil.send(&a, txn, std::slice::from_ref(&event)).await;
        let told = &told[event.event_id().as_str()];
        assert!(told.is_object() && told["error"].is_string() == is_wrong, "{txn}: {told}");
    }
    assert_eq!(shown(&a, &seat.room).await, ["said"]);
}

/// As after a night without the network in a busy room.
#[tokio::test(start_paused = true)]
async fn a_long_gap_is_filled_whole() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let mut chain: Vec<Pdu> = Vec::new();
    for n in 0..1_200 {
        let before = chain.last().map_or_else(|| seat.join.clone(), |last| last.event_id().to_owned());
        chain.push(evil.message(&seat, &n.to_string(), &[before.as_str()], seat.depth + 1 + n));
    }
    let top = chain[1_199].event_id().to_owned();
    let (raws, rounds): (Vec<Value>, _) = (chain.iter().map(raw).collect(), AtomicUsize::new(0));
    evil.answer(move |uri| {
        let round = uri.contains("/get_missing_events/").then(|| rounds.fetch_add(1, SeqCst))?;
        let end = raws.len().saturating_sub(round * 20);
        body(&json!({ "events": raws[end.saturating_sub(20)..end] }))
    });
    assert!(news(&a, (&evil, &seat), "news", top.as_str()).await);
    assert_eq!(evil.asked("/state"), 0);
    let mut said: Vec<String> = (0..1_200).map(|n| n.to_string()).collect();
    said.push("news".to_owned());
    assert_eq!(shown(&a, &seat.room).await, said);
}
