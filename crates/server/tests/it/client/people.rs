//! `/user_directory/search`: who finds whom.

use serde_json::{Value, json};

use super::home::{Home, User};

async fn find(user: &User<'_>, term: &str) -> Vec<String> {
    let found = user.post("/user_directory/search", json!({ "search_term": term })).await.ok();
    let ids = found["results"].as_array().unwrap().iter();
    ids.map(|found| found["user_id"].as_str().unwrap().to_owned()).collect()
}

async fn name(user: &User<'_>, name: &str) {
    let path = format!("/profile/{}/displayname", user.id);
    user.put(&path, json!({ "displayname": name })).await.ok();
}

#[tokio::test]
async fn people_are_found_by_beginnings_without_case_and_accents() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("b.lemaitre").await);
    name(&bob, "Benoît LEMAÎTRE-Dupré [Intérieur]").await;
    let room = bob.room(json!({ "preset": "public_chat" })).await;
    for term in [
        "benoit",
        "BENOÎT lem",
        "dup",
        "dupré benoit",
        "interieur",
        "lemaitre",
        "@b.lem",
        "b.lemaitre:a.test",
    ] {
        assert_eq!(find(&alice, term).await, std::slice::from_ref(&bob.id), "{term}");
    }
    for term in ["", "emaitre", "benoit durand", "benoitlemaitre", "interieurs"] {
        assert_eq!(find(&alice, term).await, Vec::<String>::new(), "{term}");
    }
    let found = alice.post("/user_directory/search", json!({ "search_term": "benoit" })).await.ok();
    assert_eq!(found["results"][0]["display_name"], "Benoît LEMAÎTRE-Dupré [Intérieur]");
    assert_eq!(found["limited"], false);
    name(&bob, "Barnabé").await;
    assert_eq!(find(&alice, "benoit").await, Vec::<String>::new(), "a name of yesterday");
    assert_eq!(find(&alice, "barnabe").await, std::slice::from_ref(&bob.id));
    assert_eq!(find(&bob, "barnabe").await, std::slice::from_ref(&bob.id), "one is in a public room oneself");
    bob.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    assert_eq!(find(&alice, "barnabe").await, Vec::<String>::new(), "nobody meets them now");
}

#[tokio::test]
async fn one_finds_whom_one_meets_and_nobody_else() {
    let home = Home::new().await;
    let (alice, bob, eve) = (home.user("alice").await, home.user("bob").await, home.user("eve").await);
    let closed = bob.room(json!({ "preset": "private_chat", "invite": [alice.id] })).await;
    assert_eq!(find(&alice, "bob").await, Vec::<String>::new(), "invited is not met");
    alice.post(&format!("/join/{closed}"), json!({})).await.ok();
    assert_eq!(find(&alice, "bob").await, std::slice::from_ref(&bob.id));
    assert_eq!(find(&eve, "bob").await, Vec::<String>::new());
    let rules = format!("/rooms/{closed}/state/m.room.join_rules");
    bob.put(&rules, json!({ "join_rule": "public" })).await.ok();
    assert_eq!(find(&eve, "bob").await, std::slice::from_ref(&bob.id), "the room was opened");
    assert_eq!(find(&eve, "alice").await, std::slice::from_ref(&alice.id), "for everybody in it");
    bob.put(&rules, json!({ "join_rule": "invite" })).await.ok();
    assert_eq!(find(&eve, "bob").await, Vec::<String>::new(), "and closed");
    let seen = format!("/rooms/{closed}/state/m.room.history_visibility");
    bob.put(&seen, json!({ "history_visibility": "world_readable" })).await.ok();
    assert_eq!(find(&eve, "bob").await, std::slice::from_ref(&bob.id), "anybody may look into it");
    bob.put(&seen, json!({ "history_visibility": "shared" })).await.ok();
    alice.post(&format!("/rooms/{closed}/leave"), json!({})).await.ok();
    assert_eq!(find(&alice, "bob").await, Vec::<String>::new(), "they parted");
}

#[tokio::test]
async fn what_somebody_is_called_in_a_closed_room_is_told_to_nobody() {
    let home = Home::new().await;
    let (alice, bob, eve) = (home.user("alice").await, home.user("bob").await, home.user("eve").await);
    name(&alice, "Alice Martin").await;
    alice.room(json!({ "preset": "public_chat" })).await;
    let closed = bob.room(json!({ "preset": "private_chat", "invite": [alice.id] })).await;
    let path = format!("/rooms/{closed}/state/m.room.member/{}", alice.id);
    alice.put(&path, json!({ "membership": "join", "displayname": "Freddy" })).await.ok();
    for (who, term, found) in
        [(&eve, "martin", true), (&eve, "freddy", false), (&bob, "martin", true), (&bob, "alice", true)]
    {
        let expected: Vec<String> = if found { vec![alice.id.clone()] } else { Vec::new() };
        assert_eq!(find(who, term).await, expected, "{term}");
    }
}

#[tokio::test]
async fn everybody_is_found_where_that_is_configured_but_those_who_left() {
    let home = Home::with("client.user_directory = \"everybody\"").await;
    let alice = home.user("alice").await;
    let mut hermits = Vec::new();
    for number in 10..18 {
        hermits.push(home.user(&format!("hermit{number}")).await);
    }
    assert_eq!(find(&alice, "hermit").await.len(), 8, "also those in no room at all");
    let some = alice.post("/user_directory/search", json!({ "search_term": "herm", "limit": 3 })).await.ok();
    assert_eq!((some["results"].as_array().unwrap().len(), &some["limited"]), (3, &json!(true)));
    let exact =
        alice.post("/user_directory/search", json!({ "search_term": "hermit12", "limit": 1 })).await.ok();
    assert_eq!((&exact["results"][0]["user_id"], &exact["limited"]), (&json!(hermits[2].id), &json!(false)));
    hermits[2].confirmed("POST", "/account/deactivate", json!({})).await.ok();
    assert_eq!(find(&alice, "hermit12").await, Vec::<String>::new(), "a closed account");
    let none = alice.post("/user_directory/search", json!({ "search_term": "herm", "limit": 0 })).await.ok();
    assert_eq!(none["results"], json!([]));
}

#[tokio::test]
async fn bad_questions_about_people_are_refused() {
    let home = Home::with("client.rates.search = { per_second = 0.0001, burst = 4 }").await;
    let alice = home.user("alice").await;
    let path = "/user_directory/search";
    home.call("", "POST", path, json!({ "search_term": "x" })).await.refused(401, "M_MISSING_TOKEN");
    alice.post(path, json!({})).await.refused(400, "M_BAD_JSON");
    alice.post(path, json!({ "search_term": 5 })).await.refused(400, "M_BAD_JSON");
    alice.post(path, json!({ "search_term": "x".repeat(1_000) })).await.refused(400, "M_INVALID_PARAM");
    let wide = json!({ "search_term": "x ".repeat(100), "limit": 100_000_000 });
    assert_eq!(alice.post(path, wide.clone()).await.ok()["results"], json!([]));
    let mut last = Value::Null;
    for _ in 0..4 {
        last = alice.post(path, wide.clone()).await.json;
    }
    assert_eq!(last["errcode"], "M_LIMIT_EXCEEDED", "whoever asks without end has to wait");
}
