//! Row 71: what servers ask each other about people, and what they answer.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    routing::{any, post},
};
use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::json;
use tokio::time::{pause, resume};

use super::{
    OLD_PEOPLE, PEOPLE, SEARCH, ask, closed, forum, ids, later, member, server_with, stranger, text,
};

#[tokio::test]
async fn row_71_another_server_asks_for_those_whom_its_user_may_find() {
    let net = FakeNet::new();
    let a = member(&net, "a.test").await;
    let b = member(&net, "b.test").await;
    let (alice, bob) = (a.user("alice").await, b.user("bob.martin").await);
    alice.is_called("Alice Ée Martin").await;
    // Known here, but of another server: only its own server tells of him.
    let room = alice.room(forum()).await;
    assert_eq!(bob.join(&room, "a.test").await.0, StatusCode::OK);
    alice.sees(&room, &bob.id, "join").await;
    let question = |term: &str| json!({ "requester": "@p:p.test", "search_term": term, "limit": 10 });
    for path in [PEOPLE, OLD_PEOPLE] {
        let (status, found) = ask(&a, "p.test", path, question("martin")).await;
        let her = json!({ "user_id": alice.id, "display_name": "Alice Ée Martin", "avatar_url": null });
        assert_eq!((status, found), (StatusCode::OK, json!({ "limited": false, "results": [her] })));
    }
    for (term, is_found) in [
        ("alic", true),
        ("ee mart", true),
        ("@alice:a.test", true),
        ("", false),
        ("ali", false),
        ("a al ali", false),
        ("test", false),
        ("a test", false),
        ("ali:a.test", false),
        ("martin test", false),
        ("bob.martin", false),
    ] {
        let (status, found) = ask(&a, "p.test", PEOPLE, question(term)).await;
        assert_eq!((status, !ids(&found).is_empty()), (StatusCode::OK, is_found), "{term}: {found}");
    }
    let long = "x".repeat(1_000);
    for (body, status, errcode) in [
        (json!({ "requester": "@alice:a.test", "search_term": "martin" }), 403, "M_FORBIDDEN"),
        (json!({ "requester": "@p:x.test", "search_term": "martin" }), 403, "M_FORBIDDEN"),
        (json!({ "requester": "nobody", "search_term": "martin" }), 400, "M_BAD_JSON"),
        (json!({ "search_term": "martin" }), 400, "M_BAD_JSON"),
        (json!({ "requester": "@p:p.test" }), 400, "M_BAD_JSON"),
        (question(&long), 400, "M_INVALID_PARAM"),
    ] {
        let (got, said) = ask(&a, "p.test", PEOPLE, body).await;
        assert_eq!((got.as_u16(), &said["errcode"]), (status, &json!(errcode)), "{said}");
    }
    let (status, _) = a.call("", "POST", PEOPLE, question("martin")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn row_71_who_asks_without_end_has_to_wait() {
    let net = FakeNet::new();
    let rates = "[federation.rates]\ndirectory_by_user = { per_second = 0.001, burst = 2 }\n\
        directory = { per_second = 0.001, burst = 4 }";
    let a = server_with(&net, "a.test", &closed(rates)).await;
    let mut last = BTreeMap::new();
    for requester in ["@p:p.test", "@p:p.test", "@p:p.test", "@q:p.test", "@r:p.test"] {
        let body = json!({ "requester": requester, "search_term": "martin" });
        last.insert(requester, ask(&a, "p.test", PEOPLE, body).await.0.as_u16());
    }
    let expected = [("@p:p.test", 429), ("@q:p.test", 200), ("@r:p.test", 429)];
    assert_eq!(last, BTreeMap::from(expected), "by user, and by server");
}

#[tokio::test]
async fn row_71_what_another_server_says_of_people_is_not_believed_blindly() {
    let net = FakeNet::new();
    let a = member(&net, "a.test").await;
    let (alice, anne) = (a.user("alice").await, a.user("anne.hostile").await);
    let answer = |router: Router| stranger(&net, "h.test", router);
    let lies = json!({ "limited": false, "results": [
        { "user_id": "@hal:h.test", "display_name": "Hal Hostile", "avatar_url": "mxc://h.test/x", "more": 1 },
        { "user_id": "@hal:h.test", "display_name": "Twice" },
        { "user_id": anne.id, "display_name": "Somebody else" },
        { "user_id": "@minister:b.test", "display_name": "The minister" },
        { "user_id": 7 },
        "nonsense",
    ]});
    let told = lies.clone();
    let world = answer(Router::new().route(PEOPLE, post(async move || Json(told.clone()))));
    let found = alice.ok("POST", SEARCH, json!({ "search_term": "hostile" })).await;
    let hal =
        json!({ "user_id": "@hal:h.test", "display_name": "Hal Hostile", "avatar_url": "mxc://h.test/x" });
    assert_eq!((ids(&found), &found["results"][1]), (vec![anne.id.clone(), text(&hal["user_id"])], &hal));
    world.kill();
    // Too much, nonsense, refusals: the others are found all the same, and the server is left alone for a while.
    let more = [
        Router::new().route(PEOPLE, post(async || "x".repeat(10 << 20))),
        Router::new().route(PEOPLE, post(async || "{\"results\": 7}")),
        Router::new().route(PEOPLE, post(async || "<html>")),
        Router::new().route(PEOPLE, post(async || (StatusCode::FORBIDDEN, "{}"))),
        Router::new().route(PEOPLE, post(async || (StatusCode::BAD_GATEWAY, "{}"))),
    ];
    for (n, router) in more.into_iter().enumerate() {
        // The time for which it was spared is over, and so is what it said.
        later(Duration::from_mins(11)).await;
        let world = answer(router);
        assert_eq!(alice.finds("hostile").await, std::slice::from_ref(&anne.id), "{n}");
        world.kill();
    }
}

#[tokio::test]
async fn row_71_a_slow_ministry_slows_one_search_down_and_no_more() {
    let net = FakeNet::new();
    let (a, b) = (member(&net, "a.test").await, member(&net, "b.test").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob.martin").await);
    let silent = any(async || std::future::pending::<StatusCode>().await);
    let slow = stranger(&net, "h.test", Router::new().fallback(silent));
    // Only what is waited for takes time, however slow the machine is.
    pause();
    assert_eq!(alice.finds("martin").await, std::slice::from_ref(&bob.id), "whoever answers is heard");
    let begin = a.world.instant();
    for term in ["bob.m", "bob.mar", "bob.mart"] {
        assert_eq!(alice.finds(term).await, std::slice::from_ref(&bob.id));
    }
    let took = a.world.instant() - begin;
    resume();
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    slow.kill();
}
