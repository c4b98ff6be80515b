//! States and older events that are lies, and what justifies events without end.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use chappe_rules::Pdu;
use chappe_store::state::StateKey;
use chappe_world::FakeNet;
use serde_json::{Value, json};

use super::{
    super::{
        count,
        peer::{Peer, Seat, raw},
    },
    MALLORY, NOBODYS, body, news, seat, shown,
};

/// Never ends; counts the bytes that were taken.
#[expect(clippy::unnecessary_wraps, reason = "as an answer is")]
fn endless(taken: &Arc<AtomicUsize>) -> Option<Body> {
    let taken = Arc::clone(taken);
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    Some(Body::from_stream(futures_util::stream::repeat_with(move || {
        taken.fetch_add(piece.len(), SeqCst);
        Ok::<_, std::io::Error>(piece.clone())
    })))
}

#[tokio::test(start_paused = true)]
async fn lies_about_the_state_change_nothing_and_end_at_the_limit() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let withheld = evil.message(&seat, "withheld", &[NOBODYS], seat.depth + 1);
    let levels = json!({ "users": { MALLORY: 100 } });
    let mut levels = seat.event("m.room.power_levels", levels, &[seat.join.as_str()], seat.depth + 1);
    levels["state_key"] = json!("");
    let levels = evil.sign(seat.rules, levels);
    let made_up = |count: usize| (0..count).map(|n| format!("${n:A>43}")).collect::<Vec<_>>();
    let mut forged: Vec<String> = seat.state.iter().map(ToString::to_string).collect();
    forged.push(levels.event_id().to_string());
    let taken = Arc::new(AtomicUsize::new(0));
    for (what, ids) in
        [("made up", made_up(1_000)), ("too many", made_up(500_001)), ("endless", vec![]), ("forged", forged)]
    {
        let (told, levels, missing) =
            (json!({ "pdu_ids": ids, "auth_chain_ids": [] }), raw(&levels), raw(&withheld));
        let taken = Arc::clone(&taken);
        evil.answer(move |uri| match uri {
            uri if uri.contains("/get_missing_events/") => body(&json!({ "events": [missing] })),
            uri if uri.contains("/state_ids/") && what == "endless" => endless(&taken),
            uri if uri.contains("/state_ids/") => body(&told),
            uri if uri.contains("/state/") => body(&json!({ "pdus": [], "auth_chain": [] })),
            uri if uri.contains("/event/") => {
                body(&json!({ "origin": "x", "origin_server_ts": 1, "pdus": [levels] }))
            }
            _ => None,
        });
        news(&a, (&evil, &seat), what, withheld.event_id().as_str()).await;
        assert!(evil.asked("/") < 60, "{what}: {} questions", evil.asked("/"));
        tokio::time::advance(Duration::from_hours(1)).await;
    }
    let taken = taken.load(SeqCst) >> 20;
    assert!((120..140).contains(&taken), "{taken} MiB");
    let reader = a.store.read();
    let nid = reader.room_nid(&seat.room).await.unwrap().unwrap();
    let key = StateKey::new("m.room.power_levels", "");
    let now = reader.state_now(nid, &[key]).await.unwrap()[0].unwrap();
    assert!(!reader.pdu(nid, now).await.unwrap().json.contains(MALLORY));
    assert!(news(&a, (&evil, &seat), "good", seat.join.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn lies_about_old_events_fill_nothing() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let older = evil.message(&seat, "older", &[seat.join.as_str()], seat.depth + 1);
    let middle = evil.message(&seat, "middle", &[older.event_id().as_str()], seat.depth + 2);
    let (raw_older, raw_middle) = (raw(&older), raw(&middle));
    let state: Vec<&str> = seat.state.iter().chain([&seat.join]).map(|id| id.as_str()).collect();
    let state = json!({ "pdu_ids": state, "auth_chain_ids": [] });
    let single = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw_older] });
    evil.answer(move |uri| match uri {
        uri if uri.contains("/get_missing_events/") => body(&json!({ "events": [raw_middle] })),
        uri if uri.contains("/state_ids/") => body(&state),
        uri if uri.contains("/event/") => body(&single),
        _ => None,
    });
    assert!(news(&a, (&evil, &seat), "news", middle.event_id().as_str()).await);
    assert_eq!(shown(&a, &seat.room).await, ["middle", "news"]);

    let join = seat.join.as_str();
    let mut unsigned = raw(&older);
    unsigned["signatures"] = json!({});
    let mut forged = seat.event("m.room.message", json!({ "body": "forged" }), &[join], seat.depth + 1);
    forged["sender"] = json!("@alice:a.example");
    let unrelated = evil.message(&seat, "unrelated", &[NOBODYS], seat.depth + 1);
    let by_stranger = |n: usize| {
        let mut event = seat.event("m.room.message", json!({ "body": "stranger" }), &[join], seat.depth + 1);
        event["sender"] = json!(format!("@x:h{n}.example"));
        evil.signed(seat.rules, &event).unwrap()
    };
    let looked_up = count(&net, "/.well-known/");
    let taken = Arc::new(AtomicUsize::new(0));
    for (what, pdus) in [
        ("unsigned", vec![unsigned]),
        ("forged", vec![raw(&evil.sign(seat.rules, forged))]),
        ("unrelated", vec![raw(&unrelated); 1_000]),
        ("strangers", (0..1_000).map(by_stranger).collect()),
        ("no events", vec![json!(7), json!({})]),
        ("endless", vec![]),
    ] {
        let (answer, endless_body) =
            (json!({ "origin": "x", "origin_server_ts": 1, "pdus": pdus }), Arc::clone(&taken));
        evil.answer(move |uri| match uri {
            uri if !uri.contains("/backfill/") => None,
            _ if what == "endless" => endless(&endless_body),
            _ => body(&answer),
        });
        assert_eq!(a.rooms.fetch_older(&seat.room, 100).await.unwrap(), 0, "{what}");
        assert_eq!(evil.asked("/backfill/"), 1, "{what}");
        if what == "unsigned" {
            assert_eq!(a.rooms.fetch_older(&seat.room, 100).await.unwrap(), 0);
            assert_eq!(evil.asked("/backfill/"), 1, "not again at once");
        }
        tokio::time::advance(Duration::from_mins(6)).await;
    }
    assert!(looked_up.load(SeqCst) <= 100, "{} servers are looked for", looked_up.load(SeqCst));
    assert!(taken.load(SeqCst) <= 20 << 20, "{} bytes", taken.load(SeqCst));
    assert_eq!(shown(&a, &seat.room).await, ["middle", "news"]);
    tokio::time::advance(Duration::from_hours(1)).await;
    let answer = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [raw(&older), raw(&unrelated)] });
    evil.answer(move |_| body(&answer));
    assert_eq!(a.rooms.fetch_older(&seat.room, 100).await.unwrap(), 1);
    assert_eq!(shown(&a, &seat.room).await, ["older", "middle", "news"]);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_old_events_has_us_ask_for_few_states() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let roots: Vec<Pdu> =
        (0..6).map(|n| evil.message(&seat, &n.to_string(), &[NOBODYS], seat.depth + 1)).collect();
    let ids: Vec<&str> = roots.iter().map(|pdu| pdu.event_id().as_str()).collect();
    let older = evil.message(&seat, "older", &ids, seat.depth + 2);
    let middle = evil.message(&seat, "middle", &[older.event_id().as_str()], seat.depth + 3);
    let page: Vec<Value> = roots.iter().chain([&older]).map(raw).collect();
    let page = json!({ "origin": "x", "origin_server_ts": 1, "pdus": page });
    let between = json!({ "events": [raw(&middle)] });
    let state: Vec<&str> = seat.state.iter().chain([&seat.join]).map(|id| id.as_str()).collect();
    let state = json!({ "pdu_ids": state, "auth_chain_ids": [] });
    evil.answer(move |uri| match uri {
        uri if uri.contains("/get_missing_events/") => body(&between),
        uri if uri.contains("/state_ids/") => body(&state),
        uri if uri.contains("/backfill/") => body(&page),
        _ => None,
    });
    assert!(news(&a, (&evil, &seat), "news", middle.event_id().as_str()).await);
    let before = evil.asked("/state_ids/");
    assert_eq!(a.rooms.fetch_older(&seat.room, 100).await.unwrap(), 0);
    assert_eq!(evil.asked("/state_ids/") - before, 3);
    assert_eq!(shown(&a, &seat.room).await, ["middle", "news"], "nothing is put in out of its order");
}

#[tokio::test(start_paused = true)]
async fn an_auth_chain_without_end_costs_what_may_be_fetched() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let chain = long_chain(&evil, &seat, 1_500);
    let top = chain.last().unwrap().event_id().to_string();
    let mut event =
        seat.event("m.room.message", json!({ "body": "news" }), &[seat.join.as_str()], seat.depth + 1);
    event["auth_events"].as_array_mut().unwrap().pop();
    event["auth_events"].as_array_mut().unwrap().push(json!(top));
    for all_at_once in [true, false] {
        let by_id: HashMap<String, Value> =
            chain.iter().map(|pdu| (pdu.event_id().to_string(), raw(pdu))).collect();
        let all: Vec<Value> = chain.iter().rev().map(raw).collect();
        evil.answer(move |uri| match uri.rsplit_once('/') {
            Some((path, id)) if path.ends_with("/event") => {
                let id = id.replace("%24", "$");
                body(&json!({ "origin": "x", "origin_server_ts": 1, "pdus": [by_id.get(&id)?] }))
            }
            _ if all_at_once && uri.contains("/event_auth/") => body(&json!({ "auth_chain": all })),
            _ => None,
        });
        event["content"]["body"] = json!(format!("news {all_at_once}"));
        let last = evil.sign(seat.rules, event.clone());
        evil.send(&a, &all_at_once.to_string(), std::slice::from_ref(&last)).await;
        assert!(!a.has(&last.event_id().to_owned()).await);
        assert!(evil.asked("/") <= 510, "{} questions", evil.asked("/"));
    }
    let mut kept = 0;
    for pdu in &chain {
        kept += usize::from(a.has(&pdu.event_id().to_owned()).await);
    }
    assert!(kept <= 1_000, "{kept} events are kept");
    assert!(news(&a, (&evil, &seat), "good", seat.join.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn slow_answers_hold_nobody_for_long() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let chain = long_chain(&evil, &seat, 300);
    let by_id: HashMap<String, Value> =
        chain.iter().map(|pdu| (pdu.event_id().to_string(), raw(pdu))).collect();
    evil.answer(move |uri| {
        let (_, id) = uri.rsplit_once('/').filter(|(path, _)| path.ends_with("/event"))?;
        let event = by_id.get(&id.replace("%24", "$"))?;
        let told = json!({ "origin": "x", "origin_server_ts": 1, "pdus": [event] }).to_string();
        Some(Body::from_stream(futures_util::stream::once(async move {
            tokio::time::sleep(Duration::from_secs(15)).await;
            Ok::<_, std::io::Error>(Bytes::from(told))
        })))
    });
    let top = chain.last().unwrap().event_id().to_string();
    for (round, most) in [(1, 25), (2, 25)] {
        let mut event = seat.event("m.room.message", json!({ "body": round }), &[seat.join.as_str()], 9);
        event["auth_events"].as_array_mut().unwrap().pop();
        event["auth_events"].as_array_mut().unwrap().push(json!(top));
        evil.send(&a, &round.to_string(), &[evil.sign(seat.rules, event)]).await;
        tokio::time::sleep(Duration::from_mins(7)).await;
        let asked = evil.asked("/event/");
        assert!((10..=most).contains(&asked), "round {round}: {asked} questions");
    }
    assert!(news(&a, (&evil, &seat), "good", seat.join.as_str()).await);
}

/// Changes of the user's name, each justified by the one before, the first by something that nobody has.
fn long_chain(evil: &Peer, seat: &Seat, length: usize) -> Vec<Pdu> {
    let mut chain: Vec<Pdu> = Vec::with_capacity(length);
    for n in 0..length {
        let content = json!({ "membership": "join", "displayname": n.to_string() });
        let mut event = seat.event("m.room.member", content, &[seat.join.as_str()], seat.depth + 1);
        event["state_key"] = json!(MALLORY);
        let before = chain.last().map_or(NOBODYS, |pdu| pdu.event_id().as_str()).to_owned();
        event["auth_events"].as_array_mut().unwrap().pop();
        event["auth_events"].as_array_mut().unwrap().push(json!(before));
        chain.push(evil.sign(seat.rules, event));
    }
    chain
}
