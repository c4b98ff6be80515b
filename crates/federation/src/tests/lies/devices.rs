//! Forged news of keys and devices, and questions about them without end.

use std::time::Duration;

use chappe_rooms::Change;
use chappe_store::accounts_keys::{DeviceListHeads, RemoteLists};
use chappe_world::FakeNet;
use http::{Method, StatusCode};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use super::{
    super::{Server, config, devices::ask, peer::Peer},
    MALLORY, body, seat,
};

#[tokio::test(start_paused = true)]
async fn news_about_others_keys_and_lists_that_jump_are_worth_little() {
    let net = FakeNet::new();
    let (a, evil, _seat) = seat(&net, "11").await;
    let alice = a.account("alice").await;
    let carol = UserId::parse("@carol:c.example").unwrap();
    let public = "A".repeat(43);
    let keys = |user: &UserId| {
        let master =
            json!({ "user_id": user, "usage": ["master"], "keys": { format!("ed25519:{public}"): public } });
        json!({ "edu_type": "m.signing_key_update", "content": { "user_id": user, "master_key": master } })
    };
    let jump = |n: u64| {
        json!({ "edu_type": "m.device_list_update", "content": {
            "user_id": MALLORY, "device_id": format!("D{n}"), "stream_id": (n + 100) << 40, "prev_id": [((n + 100) << 40) - 1],
        } })
    };
    let mut edus = vec![keys(&alice), keys(&carol)];
    edus.extend((1..=90).map(jump));
    let list = json!({ "user_id": MALLORY, "stream_id": 1_u64, "devices": [] });
    evil.answer(move |uri| uri.contains("/user/devices/").then(|| body(&list))?);
    let mallory = UserId::parse(MALLORY).unwrap();
    ask(&a, &alice, &evil.name, [(mallory, Vec::new())].into()).await.unwrap();
    let known = evil.asked("/user/devices/");
    let transaction = json!({ "origin": evil.name, "origin_server_ts": 1, "pdus": [], "edus": edus });
    let uri = "/_matrix/federation/v1/send/1";
    assert_eq!(evil.call(&a, Method::PUT, uri, &transaction).await.0, StatusCode::OK);
    for user in [&alice, &carol] {
        assert!(a.accounts.public_keys(None, user, &[]).await.unwrap().master.is_none(), "{user}");
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    let asked = evil.asked("/user/devices/") - known;
    assert!(known > 0 && asked <= 2, "{known} times before, {asked} times after");
}

/// A user of the peer's.
fn of_evil(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:evil.example")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn of_devices_of_whom_nobody_meets_nothing_is_kept() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let alice = a.account("alice").await;
    let list = |user: &UserId| json!({ "user_id": user, "stream_id": 7_u64, "devices": [] });
    evil.answer(move |uri| {
        let name = uri.strip_prefix("/_matrix/federation/v1/user/devices/%40")?.split('%').next()?;
        body(&list(&of_evil(name)))
    });
    let news = |user: &UserId, stream_id: u64| {
        json!({ "edu_type": "m.device_list_update", "content": {
            "user_id": user, "device_id": "D", "stream_id": stream_id, "prev_id": [stream_id - 1],
        } })
    };
    let keys = |user: &UserId| json!({ "edu_type": "m.signing_key_update", "content": { "user_id": user } });
    let tell = async |txn: &str, edus: Vec<Value>| {
        let transaction = json!({ "origin": evil.name, "origin_server_ts": 1, "pdus": [], "edus": edus });
        let uri = format!("/_matrix/federation/v1/send/{txn}");
        assert_eq!(evil.call(&a, Method::PUT, &uri, &transaction).await.0, StatusCode::OK);
    };
    // Until then Mallory has just come.
    tokio::time::sleep(Duration::from_mins(2)).await;
    let strangers: Vec<_> = (0..40).map(|n| of_evil(&format!("s{n}"))).collect();
    let edus = strangers.iter().flat_map(|user| [news(user, 9), keys(user)]).collect();
    tell("strangers", edus).await;
    let rows = async |user: &UserId| {
        let (reader, key) = (a.store.read(), user.to_owned());
        let changed = reader.get::<DeviceListHeads>(&key).await.unwrap().is_some();
        (reader.get::<RemoteLists>(&key).await.unwrap().is_some(), changed)
    };
    for user in &strangers {
        assert_eq!(rows(user).await, (false, false), "{user}");
    }
    assert!(a.accounts.stale_lists(None, 10).await.unwrap().is_empty());
    // Whom somebody meets is asked for, and those who meet are told of.
    tell("met", vec![news(&of_evil("mallory"), 9)]).await;
    assert_eq!(rows(&of_evil("mallory")).await, (true, true));

    let newcomer = &strangers[0];
    evil.join(&a, &seat.room, newcomer.as_str()).await;
    let asked = async || {
        let before = evil.asked(&format!("/user/devices/%40{}", newcomer.localpart()));
        ask(&a, &alice, &evil.name, [(newcomer.clone(), Vec::new())].into()).await.unwrap();
        evil.asked(&format!("/user/devices/%40{}", newcomer.localpart())) - before
    };
    assert_eq!((asked().await, asked().await), (1, 0), "the first look asks, the next one need not");
    // Gone and back, with news in between that nobody was to hear.
    let kick = Change::Kick;
    a.rooms.change(&a.actor("alice"), &seat.room, newcomer, kick, None).await.unwrap();
    tell("gone", vec![news(newcomer, 20), keys(newcomer)]).await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(a.accounts.remote_list(newcomer).await.unwrap().unwrap().stale, "believed without being heard");
    evil.join(&a, &seat.room, newcomer.as_str()).await;
    assert_eq!((asked().await, asked().await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn questions_about_keys_have_a_size() {
    let net = FakeNet::new();
    let (a, evil) = (Server::start(&net, "a.example", 1, config()), Peer::start(&net, "evil.example", 6));
    a.account("alice").await;
    let claim = async |devices: usize| {
        let devices: Map<String, Value> =
            (0..devices).map(|n| (format!("D{n}"), json!("signed_curve25519"))).collect();
        let body = json!({ "one_time_keys": { "@alice:a.example": devices } });
        evil.call(&a, Method::POST, "/_matrix/federation/v1/user/keys/claim", &body).await.0
    };
    assert_eq!(claim(5_000).await, StatusCode::OK);
    assert_eq!(claim(5_001).await, StatusCode::PAYLOAD_TOO_LARGE);
    let users: Map<String, Value> = (0..2_001).map(|n| (format!("@u{n}:a.example"), json!([]))).collect();
    let body = json!({ "device_keys": users });
    let uri = "/_matrix/federation/v1/user/keys/query";
    let (status, answer) = evil.call(&a, Method::POST, uri, &body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(answer["device_keys"].as_object().unwrap().len() <= 2_000);
    let users: Map<String, Value> = (0..5_000).map(|n| (format!("@u{n}:c.example"), json!([]))).collect();
    let (_, answer) = evil.call(&a, Method::POST, uri, &json!({ "device_keys": users })).await;
    assert_eq!(answer["device_keys"], json!({}), "of others' users nothing is told");
}
