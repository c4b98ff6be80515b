//! The device a user leaves asleep (MSC3814).

use serde_json::{Value, json};

use super::home::{Home, User};

pub(super) const DEVICE: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// What puts a device to sleep.
pub(super) fn asleep(user: &User<'_>, device: &str) -> Value {
    let key = "A".repeat(43);
    json!({
        "device_id": device,
        "device_data": { "algorithm": "m.dehydration.v2", "device_pickle": "…", "nonce": "…" },
        "initial_device_display_name": "Sleeper",
        "device_keys": {
            "user_id": user.id, "device_id": device, "dehydrated": true,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": { format!("ed25519:{device}"): key, format!("curve25519:{device}"): key },
            "signatures": {},
        },
        "one_time_keys": { "signed_curve25519:A": { "key": "a2V5", "signatures": {} } },
        "fallback_keys": { "signed_curve25519:F": { "key": "a2V5", "fallback": true, "signatures": {} } },
    })
}

async fn say(from: &User<'_>, to: &User<'_>, device: &str, n: usize) {
    let body = json!({ "messages": { to.id.clone(): { device: { "n": n } } } });
    from.put(&format!("/sendToDevice/x/{device}-{n}"), body).await.ok();
}

#[tokio::test]
async fn a_sleeping_device_gets_what_is_sent_and_is_replaced_whole() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.get(DEVICE).await.refused(404, "M_NOT_FOUND");
    let body = asleep(&alice, "ONE");
    assert_eq!(alice.put(DEVICE, body.clone()).await.ok(), json!({ "device_id": "ONE" }));
    let found = alice.get(DEVICE).await.ok();
    assert_eq!(found, json!({ "device_id": "ONE", "device_data": body["device_data"] }));
    let query = json!({ "device_keys": { alice.id.clone(): [] } });
    let keys = bob.post("/keys/query", query.clone()).await.ok()["device_keys"][&alice.id].clone();
    assert_eq!(keys["ONE"]["dehydrated"], true);
    let claim = json!({ "one_time_keys": { alice.id.clone(): { "ONE": "signed_curve25519" } } });
    for id in ["signed_curve25519:A", "signed_curve25519:F", "signed_curve25519:F"] {
        let claimed = bob.post("/keys/claim", claim.clone()).await.ok();
        assert!(claimed["one_time_keys"][&alice.id]["ONE"].get(id).is_some(), "{id}: {claimed}");
    }
    for n in 0..150 {
        say(&bob, &alice, "ONE", n).await;
    }
    let events = format!("{DEVICE}/ONE/events");
    for _ in 0..2 {
        let (mut seen, mut from, mut pages) = (Vec::new(), Value::Null, 0);
        loop {
            let body = if from.is_null() { json!({}) } else { json!({ "next_batch": from }) };
            let page = alice.post(&events, body).await.ok();
            let found = page["events"].as_array().unwrap().clone();
            from = page["next_batch"].clone();
            if found.is_empty() {
                break;
            }
            pages += 1;
            seen.extend(found.into_iter().map(|event| event["content"]["n"].clone()));
        }
        assert_eq!((seen, pages), ((0..150).map(Value::from).collect(), 2), "reading deletes nothing");
    }
    alice.put(DEVICE, asleep(&alice, "TWO")).await.ok();
    alice.post(&events, json!({})).await.refused(403, "M_FORBIDDEN");
    alice.get(&events).await.refused(403, "M_FORBIDDEN");
    let keys = bob.post("/keys/query", query).await.ok()["device_keys"][&alice.id].clone();
    assert!(keys.get("ONE").is_none() && keys.get("TWO").is_some());
    say(&bob, &alice, "TWO", 0).await;
    alice.put(DEVICE, asleep(&alice, "TWO")).await.ok();
    let page = alice.post(&format!("{DEVICE}/TWO/events"), json!({})).await.ok();
    assert_eq!(page["events"].as_array().unwrap().len(), 1, "the same device keeps its messages");
    assert_eq!(alice.call("DELETE", DEVICE, Value::Null).await.ok()["device_id"], "TWO");
    alice.call("DELETE", DEVICE, Value::Null).await.refused(404, "M_NOT_FOUND");
    alice.get(DEVICE).await.refused(404, "M_NOT_FOUND");
    assert_eq!(alice.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 1);
}

/// The numbers in each answer, read with GET until there is no token to go on with.
async fn pages(of: &User<'_>, events: &str, query: &str) -> Vec<Vec<Value>> {
    let (mut pages, mut from) = (Vec::new(), String::new());
    loop {
        let page = of.get(&format!("{events}?{query}{from}")).await.ok();
        let found = page["events"].as_array().unwrap();
        pages.push(found.iter().map(|event| event["content"]["n"].clone()).collect());
        match page.get("next_batch") {
            Some(next) => from = format!("&from={}", next.as_str().unwrap()),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn the_last_page_of_a_sleeping_device_names_no_other() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.put(DEVICE, asleep(&alice, "ONE")).await.ok();
    let events = format!("{DEVICE}/ONE/events");
    let numbers = |range: std::ops::Range<u64>| range.map(Value::from).collect::<Vec<_>>();
    assert_eq!(alice.get(&events).await.ok(), json!({ "events": [] }));
    for n in 0..150 {
        say(&bob, &alice, "ONE", n).await;
    }
    assert_eq!(pages(&alice, &events, "").await, [numbers(0..100), numbers(100..150)]);
    assert_eq!(pages(&alice, &events, "limit=75").await, [numbers(0..75), numbers(75..150)]);
    let bounded = pages(&alice, &events, "limit=1000").await;
    assert_eq!(bounded, [numbers(0..100), numbers(100..150)], "no more than a page");
    let least = alice.get(&format!("{events}?limit=0")).await.ok();
    assert_eq!(least["events"].as_array().unwrap().len(), 1, "a client that goes on comes to the end");
    for query in ["from=dd1_18446744073709551615", "from=1", "limit=many"] {
        alice.get(&format!("{events}?{query}")).await.refused(400, "M_INVALID_PARAM");
    }
    bob.get(&events).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn nobody_is_logged_in_with_a_sleeping_device() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.put(DEVICE, asleep(&alice, "ONE")).await.ok();
    let log_in = json!({ "type": "m.login.password", "device_id": "ONE", "password": super::home::PASSWORD,
        "identifier": { "type": "m.id.user", "user": "alice" } });
    home.call("", "POST", "/login", log_in.clone()).await.refused(403, "M_FORBIDDEN");
    let events = "/ONE/events";
    for (method, path) in [("PUT", ""), ("GET", ""), ("DELETE", ""), ("GET", events), ("POST", events)] {
        home.call("", method, &format!("{DEVICE}{path}"), json!({})).await.refused(401, "M_MISSING_TOKEN");
    }
    bob.get(DEVICE).await.refused(404, "M_NOT_FOUND");
    bob.post(&format!("{DEVICE}/ONE/events"), json!({})).await.refused(403, "M_FORBIDDEN");
    bob.call("DELETE", DEVICE, Value::Null).await.refused(404, "M_NOT_FOUND");
    let token = json!({ "next_batch": "18446744073709551615" });
    alice.post(&format!("{DEVICE}/ONE/events"), token).await.refused(400, "M_INVALID_PARAM");
    alice.post("/logout/all", json!({})).await.ok();
    let back = home.call("", "POST", "/login", log_in).await.ok();
    let token = back["access_token"].as_str().unwrap();
    home.call(token, "GET", DEVICE, Value::Null).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_sleeping_device_is_looked_at_before_it_is_taken() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let put = async |change: &dyn Fn(&mut Value)| {
        let mut body = asleep(&alice, "ONE");
        change(&mut body);
        alice.put(DEVICE, body).await
    };
    let without =
        |field: &'static str| move |body: &mut Value| drop(body.as_object_mut().unwrap().remove(field));
    for field in ["device_id", "device_data", "device_keys"] {
        put(&without(field)).await.refused(400, "M_BAD_JSON");
    }
    put(&without("fallback_keys")).await.refused(400, "M_INVALID_PARAM");
    put(&|body| body["device_data"] = json!({ "pickle": "x" })).await.refused(400, "M_BAD_JSON");
    put(&|body| body["device_data"]["pad"] = json!("x".repeat(64_000))).await.refused(413, "M_TOO_LARGE");
    put(&|body| body["device_keys"]["dehydrated"] = json!(false)).await.refused(400, "M_INVALID_PARAM");
    put(&|body| body["device_keys"]["user_id"] = json!("@bob:a.test")).await.refused(400, "M_INVALID_PARAM");
    put(&|body| body["device_id"] = json!("TWO")).await.refused(400, "M_INVALID_PARAM");
    let own = asleep(&alice, &alice.device);
    alice.put(DEVICE, own).await.refused(400, "M_INVALID_PARAM");
    alice.get(DEVICE).await.refused(404, "M_NOT_FOUND");
    put(&|_| ()).await.ok();
}
