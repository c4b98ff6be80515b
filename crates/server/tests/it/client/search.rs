//! `/search`: what is found, by whom, in what form, and what is not.

use std::collections::BTreeSet;

use chappe_accounts::Erase;
use ruma::UserId;
use serde_json::{Value, json};

use super::home::{Home, User};

async fn ask(user: &User<'_>, criteria: Value, page: &str) -> Value {
    let path = if page.is_empty() { "/search".to_owned() } else { format!("/search?next_batch={page}") };
    let body = json!({ "search_categories": { "room_events": criteria } });
    let mut answer = user.post(&path, body).await.ok();
    answer["search_categories"]["room_events"].take()
}

async fn find(user: &User<'_>, term: &str) -> Value {
    ask(user, json!({ "search_term": term, "order_by": "recent" }), "").await
}

fn bodies(found: &Value) -> Vec<&str> {
    found["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| hit["result"]["content"]["body"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn what_was_said_is_found_at_once_whatever_case_and_accents() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({ "preset": "private_chat", "name": "Élysée", "topic": "Été" })).await;
    let event = alice.say(&room, "1", "L'été à NÎMES").await;
    let found = find(&alice, "ete nimes").await;
    assert_eq!(found["count"], 1);
    let hit = &found["results"][0];
    assert_eq!(hit["result"]["event_id"], event);
    assert_eq!(hit["result"]["room_id"], room);
    assert!(hit.get("context").is_none() && hit["rank"].is_number());
    assert_eq!(found["highlights"], json!(["nîmes", "été"]));
    assert!(found.get("next_batch").is_none() && found.get("groups").is_none());
    let only = |keys: Value, term: &str| json!({ "search_term": term, "keys": keys });
    for (keys, term, count) in [
        (json!(["content.name"]), "elysee", 1),
        (json!(["content.topic"]), "ete", 1),
        (json!(["content.body"]), "ete", 1),
        (json!(["content.name", "content.topic"]), "nimes", 0),
        (json!(["content.body", "content.topic"]), "ete", 2),
        (Value::Null, "ete", 2),
    ] {
        assert_eq!(ask(&alice, only(keys.clone(), term), "").await["count"], count, "{keys} {term}");
    }
    for nothing in ["", "  ", "…"] {
        let found = find(&alice, nothing).await;
        assert_eq!((&found["count"], &found["results"]), (&json!(0), &json!([])));
    }
}

#[tokio::test]
async fn pages_go_back_to_the_first_and_count_once() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({ "preset": "private_chat" })).await;
    for number in 0..20 {
        alice.say(&room, &number.to_string(), &format!("mot {number}")).await;
    }
    for order in ["recent", "rank"] {
        let criteria =
            json!({ "search_term": "mot", "order_by": order, "filter": { "limit": 8, "rooms": [room] } });
        let (mut seen, mut page) = (Vec::new(), String::new());
        for expected in [8, 8, 4] {
            let found = ask(&alice, criteria.clone(), &page).await;
            assert_eq!(found["count"], 20, "{order}");
            assert_eq!(bodies(&found).len(), expected, "{order}");
            seen.extend(bodies(&found).into_iter().map(str::to_owned));
            page = found["next_batch"].as_str().unwrap_or_default().to_owned();
        }
        assert_eq!(page, "", "{order}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 20, "{order}");
        if order == "recent" {
            assert_eq!((seen[0].as_str(), seen[19].as_str()), ("mot 19", "mot 0"));
        }
    }
}

#[tokio::test]
async fn context_state_and_groups_come_when_they_are_asked_for() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat", "name": "Salon" })).await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    for (number, text) in ["un", "deux", "trois cible", "quatre", "cinq cible"].iter().enumerate() {
        let who = if number == 4 { &bob } else { &alice };
        who.say(&room, &number.to_string(), text).await;
    }
    let criteria = json!({
        "search_term": "cible", "order_by": "recent", "include_state": true, "filter": { "limit": 1 },
        "event_context": { "before_limit": 2, "after_limit": 1, "include_profile": true },
        "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
    });
    let found = ask(&alice, criteria.clone(), "").await;
    assert_eq!(found["count"], 2);
    let context = &found["results"][0]["context"];
    let around = |side: &str| -> Vec<String> {
        context[side]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["content"]["body"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(around("events_before"), ["quatre", "trois cible"], "the nearest first");
    assert_eq!(around("events_after"), Vec::<String>::new());
    let profiles = context["profile_info"].as_object().unwrap();
    assert_eq!(profiles.keys().collect::<Vec<_>>(), [&alice.id, &bob.id]);
    let back = format!("/rooms/{room}/messages?dir=b&limit=1&from={}", context["start"].as_str().unwrap());
    assert_eq!(alice.get(&back).await.ok()["chunk"][0]["content"]["body"], "deux");
    let state = found["state"][&room].as_array().unwrap();
    assert!(state.iter().any(|event| event["content"]["name"] == "Salon"));
    let groups = &found["groups"];
    assert_eq!(groups["sender"].as_object().unwrap().len(), 1, "of this page alone");
    let by_bob = &groups["sender"][&bob.id];
    assert_eq!((by_bob["order"].as_u64(), by_bob["results"].as_array().unwrap().len()), (Some(0), 1));
    let more = ask(&alice, criteria.clone(), by_bob["next_batch"].as_str().unwrap()).await;
    assert_eq!(bodies(&more), Vec::<&str>::new(), "bob said it once");
    let more = ask(&alice, criteria, groups["room_id"][&room]["next_batch"].as_str().unwrap()).await;
    assert_eq!(bodies(&more), ["trois cible"]);
}

#[tokio::test]
async fn what_erased_people_were_called_is_for_those_who_were_there() {
    let home = Home::new().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    let call = async |name: &str| {
        let content = json!({ "membership": "join", "displayname": name });
        alice.put(&format!("/rooms/{room}/state/m.room.member/{}", alice.id), content).await.ok();
    };
    call("Before").await;
    alice.say(&room, "1", "un").await;
    bob.say(&room, "2", "cible").await;
    call("After").await;
    carol.post(&format!("/join/{room}"), json!({})).await.ok();
    let id = UserId::parse(&alice.id).unwrap();
    home.accounts.deactivate(&id, Erase::Yes).await.unwrap();
    let criteria = json!({
        "search_term": "cible",
        "event_context": { "before_limit": 1, "after_limit": 0, "include_profile": true },
    });
    for (who, name) in [(&bob, json!("Before")), (&carol, Value::Null)] {
        let found = ask(who, criteria.clone(), "").await;
        let profiles = &found["results"][0]["context"]["profile_info"];
        assert!(profiles[&alice.id].is_object(), "{found}");
        assert_eq!(profiles[&alice.id]["displayname"], name, "{found}");
    }
}

/// Events are dated to the millisecond: what is said in two rooms within one has no order.
async fn next_millisecond() {
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
}

#[tokio::test]
async fn state_comes_without_the_crowd_and_from_where_one_may_look() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    bob.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    alice.say(&room, "1", "cible").await;
    let criteria = json!({ "search_term": "cible", "include_state": true });
    let found = ask(&alice, criteria.clone(), "").await;
    let state = found["state"][&room].as_array().unwrap();
    let members: Vec<_> = state.iter().filter(|event| event["type"] == "m.room.member").collect();
    assert_eq!(members.len(), 1, "who said it, not who left: {members:?}");

    let open = alice.room(json!({ "preset": "private_chat", "invite": [bob.id] })).await;
    let seen = format!("/rooms/{open}/state/m.room.history_visibility");
    alice.put(&seen, json!({ "history_visibility": "world_readable" })).await.ok();
    alice.say(&open, "2", "cible ouverte").await;
    alice.put(&seen, json!({ "history_visibility": "joined" })).await.ok();
    bob.post(&format!("/rooms/{open}/leave"), json!({})).await.ok();
    let found = ask(&bob, criteria, "").await;
    let said = bodies(&found);
    assert!(said.contains(&"cible ouverte"), "{said:?}");
    assert!(found["state"].get(&open).is_none());
}

#[tokio::test]
async fn filters_narrow_and_ignored_users_are_not_heard() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let one = alice.room(json!({ "preset": "public_chat" })).await;
    let two = alice.room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/join/{one}"), json!({})).await.ok();
    alice.say(&one, "1", "mot d'alice").await;
    next_millisecond().await;
    bob.say(&one, "2", "mot de bob").await;
    next_millisecond().await;
    alice.say(&two, "3", "mot ailleurs").await;
    let with = async |filter: Value| {
        let found =
            ask(&alice, json!({ "search_term": "mot", "order_by": "recent", "filter": filter }), "").await;
        bodies(&found).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(with(json!({})).await, ["mot ailleurs", "mot de bob", "mot d'alice"]);
    assert_eq!(with(json!({ "rooms": [one] })).await, ["mot de bob", "mot d'alice"]);
    assert_eq!(with(json!({ "not_rooms": [one] })).await, ["mot ailleurs"]);
    assert_eq!(with(json!({ "senders": [bob.id] })).await, ["mot de bob"]);
    assert_eq!(with(json!({ "not_senders": [alice.id] })).await, ["mot de bob"]);
    assert_eq!(with(json!({ "senders": [] })).await, Vec::<String>::new());
    assert_eq!(with(json!({ "types": ["m.room.*"] })).await.len(), 3);
    assert_eq!(with(json!({ "types": ["m.room.topic"] })).await, Vec::<String>::new());
    assert_eq!(with(json!({ "contains_url": true })).await, Vec::<String>::new());
    let ignored = json!({ "ignored_users": { &bob.id: {} } });
    alice.put(&format!("/user/{}/account_data/m.ignored_user_list", alice.id), ignored).await.ok();
    assert_eq!(with(json!({ "rooms": [one] })).await, ["mot d'alice"]);
}

#[tokio::test]
async fn around_a_hit_is_nothing_of_those_who_are_ignored_but_state_is_found() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let levels = json!({ "state_default": 0 });
    let room = alice.room(json!({ "preset": "public_chat", "power_level_content_override": levels })).await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    bob.put(&format!("/rooms/{room}/state/m.room.topic"), json!({ "topic": "cible" })).await.ok();
    alice.say(&room, "1", "avant").await;
    bob.say(&room, "2", "bruit cible").await;
    alice.say(&room, "3", "la cible").await;
    bob.say(&room, "4", "bruit").await;
    let around = json!({ "before_limit": 2, "after_limit": 2 });
    let criteria = json!({ "search_term": "cible", "order_by": "recent", "event_context": around });
    assert_eq!(ask(&alice, criteria.clone(), "").await["count"], 3);
    let ignored = json!({ "ignored_users": { &bob.id: {} } });
    alice.put(&format!("/user/{}/account_data/m.ignored_user_list", alice.id), ignored).await.ok();
    let found = ask(&alice, criteria, "").await;
    let hits = found["results"].as_array().unwrap();
    let said: Vec<_> = hits.iter().map(|hit| &hit["result"]["content"]).collect();
    assert_eq!((said.len(), &said[0]["body"], &said[1]["topic"]), (2, &json!("la cible"), &json!("cible")));
    let context = &hits[0]["context"];
    assert!(!context.to_string().contains("bruit"), "{context}");
    assert_eq!(context["events_before"][0]["content"]["body"], "avant");
    assert_eq!(context["events_before"][1]["content"]["topic"], "cible", "state is told");
    assert_eq!(context["events_after"], json!([]));
}

#[tokio::test]
async fn redacted_events_are_found_no_more() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let room = alice.room(json!({ "preset": "private_chat" })).await;
    let event = alice.say(&room, "1", "secret").await;
    alice.say(&room, "2", "secret gardé").await;
    assert_eq!(find(&alice, "secret").await["count"], 2);
    alice.put(&format!("/rooms/{room}/redact/{event}/3"), json!({})).await.ok();
    for order in ["rank", "recent"] {
        let found = ask(&alice, json!({ "search_term": "secret", "order_by": order }), "").await;
        assert_eq!((&found["count"], bodies(&found)), (&json!(1), vec!["secret gardé"]));
    }
}

#[tokio::test]
async fn an_upgraded_room_is_searched_with_what_it_replaces() {
    let home = Home::new().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let old = alice.room(json!({ "preset": "public_chat" })).await;
    alice.say(&old, "1", "mot ancien").await;
    let new = alice.post(&format!("/rooms/{old}/upgrade"), json!({ "new_version": "11" })).await.ok();
    let new = new["replacement_room"].as_str().unwrap();
    alice.say(new, "2", "mot nouveau").await;
    bob.post(&format!("/join/{new}"), json!({})).await.ok();
    let criteria = json!({ "search_term": "mot", "order_by": "recent", "filter": { "rooms": [new] } });
    assert_eq!(bodies(&ask(&alice, criteria.clone(), "").await), ["mot nouveau", "mot ancien"]);
    assert_eq!(bodies(&ask(&bob, criteria, "").await), ["mot nouveau"], "bob was never in the old room");
}

#[tokio::test]
async fn nothing_is_found_or_counted_that_one_may_not_see() {
    let home = Home::new().await;
    let (alice, bob, eve) = (home.user("alice").await, home.user("bob").await, home.user("eve").await);
    let room = alice.room(json!({ "preset": "private_chat", "invite": [bob.id] })).await;
    let path = format!("/rooms/{room}/state/m.room.history_visibility");
    alice.put(&path, json!({ "history_visibility": "joined" })).await.ok();
    alice.say(&room, "1", "licenciement").await;
    let count = async |user: &User<'_>, filter: Value| {
        let criteria = json!({ "search_term": "licenciement", "filter": filter });
        let found = ask(user, criteria, "").await;
        (found["count"].as_u64().unwrap(), bodies(&found).len(), found["highlights"].clone())
    };
    let nothing = (0, 0, json!([]));
    assert_eq!(count(&alice, json!({})).await.0, 1);
    assert_eq!(count(&bob, json!({ "rooms": [room] })).await, nothing, "an invite is no membership");
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    assert_eq!(count(&bob, json!({})).await, nothing, "said before bob was there");
    alice.say(&room, "2", "encore un licenciement").await;
    assert_eq!(count(&bob, json!({})).await.0, 1);
    bob.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    alice.say(&room, "3", "dernier licenciement").await;
    assert_eq!(count(&bob, json!({})).await.0, 1, "what was said while bob was there, and nothing after");
    bob.post(&format!("/rooms/{room}/forget"), json!({})).await.ok();
    assert_eq!(count(&bob, json!({})).await, nothing, "a room that was forgotten");
    assert_eq!(count(&eve, json!({ "rooms": [room] })).await, nothing, "a stranger's room");
    // A token is its user's alone.
    let criteria = json!({ "search_term": "licenciement", "filter": { "limit": 1 },
        "groupings": { "group_by": [{ "key": "room_id" }] } });
    let found = ask(&alice, criteria.clone(), "").await;
    for token in [&found["next_batch"], &found["groups"]["room_id"][&room]["next_batch"]] {
        let path = format!("/search?next_batch={}", token.as_str().unwrap());
        let body = json!({ "search_categories": { "room_events": criteria } });
        eve.post(&path, body).await.refused(400, "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn bad_questions_are_refused() {
    let home = Home::with("client.rates.search = { per_second = 0.0001, burst = 9 }").await;
    let alice = home.user("alice").await;
    home.call("", "POST", "/search", json!({})).await.refused(401, "M_MISSING_TOKEN");
    let of = |criteria: Value| json!({ "search_categories": { "room_events": criteria } });
    for (path, body, errcode) in [
        ("/search", json!({}), "M_BAD_JSON"),
        ("/search", of(json!({})), "M_BAD_JSON"),
        ("/search", of(json!({ "search_term": 5 })), "M_BAD_JSON"),
        ("/search", of(json!({ "search_term": "x".repeat(2_000) })), "M_INVALID_PARAM"),
        ("/search", of(json!({ "search_term": "x", "order_by": "luck" })), "M_INVALID_PARAM"),
        ("/search", of(json!({ "search_term": "x", "keys": ["content.secret"] })), "M_INVALID_PARAM"),
        ("/search?next_batch=nonsense", of(json!({ "search_term": "x" })), "M_INVALID_PARAM"),
    ] {
        alice.post(path, body).await.refused(400, errcode);
    }
    let wide = json!({ "search_term": "x ".repeat(400), "filter": { "limit": 100_000, "rooms": [] } });
    alice.post("/search", of(wide)).await.ok();
    alice.post("/search", json!({ "search_categories": {} })).await.ok();
    let (mut last, body) = (200, of(json!({ "search_term": "x" })));
    for _ in 0..9 {
        last = alice.post("/search", body.clone()).await.status.as_u16();
    }
    assert_eq!(last, 429, "whoever asks without end has to wait");
}

#[tokio::test]
async fn a_server_may_leave_messages_out() {
    let home = Home::with("search.messages = false").await;
    let alice = home.user("alice").await;
    let criteria = json!({ "search_categories": { "room_events": { "search_term": "x" } } });
    alice.post("/search", criteria).await.refused(400, "M_UNRECOGNIZED");
    home.user("albert").await.room(json!({ "preset": "public_chat" })).await;
    let found = alice.post("/user_directory/search", json!({ "search_term": "alb" })).await.ok();
    assert_eq!(found["results"][0]["user_id"], "@albert:a.test", "people are found either way");
}
