//! Rows 67 to 72 and 74: the directory of people and rooms of the whole network.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    routing::{any, post},
};
use chappe_accounts::Deactivation;
use chappe_rules::build::SigningKey;
use chappe_world::{Fake, FakeNet, World};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use ruma::{CanonicalJsonObject, ServerName, UserId};
use serde_json::{Value, json};
use tokio::time::{advance, pause, resume};
use tower::ServiceExt;

use super::{Place, User, forum, server_with, text};

const SEARCH: &str = "/user_directory/search";
const PEOPLE: &str = "/_matrix/federation/unstable/org.matrix.msc4258/user_directory/search";
const OLD_PEOPLE: &str = "/_matrix/federation/unstable/fr.tchap/user_directory/search";
const INFOS: &str = "/_matrix/federation/unstable/users/info";
const MANY: &str = "/_matrix/client/unstable/users/info";

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32], "k").unwrap()
}

/// What servers of a closed network say, which `p.test` and the external `x.test` belong to with a key of the test.
fn closed(more: &str) -> String {
    let key = key().public_base64();
    format!(
        r#"
[federation]
allow = ["a.test", "b.test", "e.test", "h.test", "p.test", "x.test"]
[federation.pinned_keys]
"p.test" = {{ "ed25519:k" = "{key}" }}
"x.test" = {{ "ed25519:k" = "{key}" }}
{more}
"#
    )
}

async fn member(net: &FakeNet, name: &str) -> Place {
    server_with(net, name, &closed("")).await
}

/// The same, where accounts end: nobody is there yet to be given a first end.
async fn ending(net: &FakeNet, name: &str) -> Place {
    let place = server_with(net, name, &closed("[accounts.validity]\ndays = 100")).await;
    while place.accounts.enrol_some().await.unwrap() {}
    place
}

/// Asks `place` as the server `origin`, with a signature.
async fn ask(place: &Place, origin: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let said = json!({
        "method": "POST", "uri": path, "origin": origin, "destination": "a.test", "content": body,
    });
    let mut said: CanonicalJsonObject = serde_json::from_value(said).unwrap();
    key().sign_json(&ServerName::parse(origin).unwrap(), &mut said);
    let said = serde_json::to_value(said).unwrap();
    let signature = said["signatures"][origin]["ed25519:k"].as_str().unwrap();
    let header =
        format!("X-Matrix origin=\"{origin}\",destination=\"a.test\",key=\"ed25519:k\",sig=\"{signature}\"");
    let request =
        Request::post(path).header(header::AUTHORIZATION, header).body(Body::from(body.to_string()));
    let (parts, body) = place.router.clone().oneshot(request.unwrap()).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// Turns all clocks forward.
async fn later(by: Duration) {
    pause();
    advance(by).await;
    resume();
}

/// Something else on the network than a server of ours.
fn stranger(net: &FakeNet, name: &str, router: Router) -> World {
    let world = World::fake(Fake::new(name, 9, net));
    net.route(name, &world, router);
    world
}

impl User<'_> {
    async fn finds(&self, term: &str) -> Vec<String> {
        ids(&self.ok("POST", SEARCH, json!({ "search_term": term })).await)
    }

    async fn is_called(&self, name: &str) {
        self.ok("PUT", &format!("/profile/{}/displayname", self.id), json!({ "displayname": name })).await;
    }

    async fn wishes(&self, kind: &str, content: Value) {
        self.ok("PUT", &format!("/user/{}/account_data/{kind}", self.id), content).await;
    }

    /// The names of all public rooms of the network, or of those that a term finds.
    async fn forums(&self, term: &str) -> Vec<String> {
        let body = json!({ "include_all_networks": true, "filter": { "generic_search_term": term } });
        names(&self.ok("POST", "/publicRooms", body).await)
    }

    fn account(&self) -> ruma::OwnedUserId {
        UserId::parse(&self.id).unwrap()
    }
}

fn ids(found: &Value) -> Vec<String> {
    found["results"].as_array().unwrap().iter().map(|found| text(&found["user_id"])).collect()
}

fn names(page: &Value) -> Vec<String> {
    page["chunk"].as_array().unwrap().iter().map(|room| text(&room["name"])).collect()
}

fn named(name: &str) -> Value {
    let mut request = forum();
    (request["name"], request["room_version"]) = (json!(name), json!("11"));
    request
}

#[tokio::test]
async fn row_67_people_of_all_ministries_are_found() {
    let net = FakeNet::new();
    let (a, b, e) =
        (member(&net, "a.test").await, member(&net, "b.test").await, member(&net, "e.test").await);
    let (alice, carl) = (a.user("alice").await, a.user("carl.dupont-a.fr").await);
    let (bob, zoe) = (b.user("b.lemaitre").await, b.user("zoe").await);
    e.user("paul.dupont").await;
    bob.is_called("Benoît LEMAÎTRE-Dupont [Intérieur]").await;
    zoe.is_called("Zoé Dupont").await;
    for term in ["lemaitre", "LEMAÎ ben", "interieur b", "dupont leM", "@b.lemaitre:b.test"] {
        assert_eq!(alice.finds(term).await, std::slice::from_ref(&bob.id), "{term}");
    }
    // Those of this server first, then the others by name; externals are in no directory.
    let everybody = [carl.id.clone(), bob.id.clone(), zoe.id.clone()];
    assert_eq!(alice.finds("dupon").await, everybody);
    let whole = alice.ok("POST", SEARCH, json!({ "search_term": "lemaitre" })).await;
    assert_eq!(whole["results"][0]["display_name"], "Benoît LEMAÎTRE-Dupont [Intérieur]");
    assert_eq!(whole["limited"], false);
    let some = alice.ok("POST", SEARCH, json!({ "search_term": "dupont", "limit": 2 })).await;
    assert_eq!((ids(&some), &some["limited"]), (everybody[..2].to_vec(), &json!(true)));
    for scope in ["local", "restricted"] {
        let found = alice.ok("POST", SEARCH, json!({ "search_term": "dupont", "search_scope": scope })).await;
        assert_eq!(ids(&found), everybody[..1], "{scope}");
    }
    let wrong = json!({ "search_term": "dupont", "search_scope": "world" });
    let (status, said) = alice.call("POST", SEARCH, wrong).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_PARAM")));
    assert_eq!(alice.finds("zoe").await, Vec::<String>::new(), "three letters are asked of nobody else");
    // A ministry that is gone takes nothing from the others.
    net.unroute("b.test");
    assert_eq!(alice.finds("dupont-a").await, std::slice::from_ref(&carl.id));
}

#[tokio::test]
async fn row_68_who_hides_is_found_by_those_alone_who_know_them() {
    let net = FakeNet::new();
    let (a, b) = (member(&net, "a.test").await, member(&net, "b.test").await);
    let (alice, anne, bea) = (a.user("alice").await, a.user("anne").await, b.user("bea").await);
    let bruno = b.user("bruno").await;
    let (nobody, him) = (Vec::<String>::new(), vec![bruno.id.clone()]);
    // A forum makes nobody acquainted who is not in it.
    let open = bruno.room(forum()).await;
    assert_eq!(anne.join(&open, "b.test").await.0, StatusCode::OK);
    bruno.sees(&open, &anne.id, "join").await;
    assert_eq!((alice.finds("bruno").await, bea.finds("bruno").await), (him.clone(), him.clone()));
    bruno.wishes("im.vector.hide_profile", json!({ "hide_profile": true })).await;
    assert_eq!(bea.finds("bruno").await, nobody, "at once");
    assert_eq!(alice.finds("@bruno:b.test").await, nobody, "at once, whatever was not asked before");
    later(Duration::from_secs(11)).await;
    assert_eq!(alice.finds("bruno").await, nobody);
    assert_eq!(anne.finds("bruno").await, him, "they share a room");
    for (level, on_b, on_a) in [("local", true, false), ("restricted", false, false), ("remote", true, true)]
    {
        bruno.wishes("im.vector.hide_profile", json!({ "hide_profile": false })).await;
        bruno.wishes("m.user_directory", json!({ "visibility": level })).await;
        let found = |is_found| if is_found { him.clone() } else { nobody.clone() };
        assert_eq!(bea.finds("bruno").await, found(on_b), "{level}");
        let fresh = a.user(&format!("reader-{level}")).await;
        assert_eq!(fresh.finds("bruno").await, found(on_a), "{level}");
    }
    bruno.wishes("m.user_directory", json!({ "visibility": "hidden" })).await;
    let room = bruno.room(json!({ "preset": "private_chat", "invite": [bea.id] })).await;
    assert_eq!(bea.join(&room, "b.test").await.0, StatusCode::OK);
    assert_eq!(bea.finds("bruno").await, nobody, "hidden is hidden");
    bruno.wishes("m.user_directory", json!({ "visibility": "restricted" })).await;
    assert_eq!(bea.finds("bruno").await, him, "they share a room");
}

#[tokio::test]
async fn row_69_who_has_left_ended_or_is_locked_is_found_nowhere() {
    let net = FakeNet::new();
    let a = member(&net, "a.test").await;
    let b = ending(&net, "b.test").await;
    let (alice, bea) = (a.user("alice").await, b.user("bea").await);
    let [left, ended, locked, there] =
        ["martin.left", "martin.ended", "martin.locked", "martin.there"].map(|name| b.user(name));
    let (left, ended, locked, there) = (left.await, ended.await, locked.await, there.await);
    let gone = Deactivation { at: 1, erase: false, addresses: Vec::new() };
    b.accounts.update_user(&left.account(), |user| user.deactivated = Some(gone.clone())).await.unwrap();
    b.accounts.update_user(&locked.account(), |user| user.locked = true).await.unwrap();
    b.accounts.say_end(&ended.account(), Some(b.world.now()), None).await.unwrap();
    for user in [&alice, &bea] {
        assert_eq!(user.finds("martin").await, std::slice::from_ref(&there.id));
    }
}

#[tokio::test]
async fn row_70_externals_find_nobody_and_no_rooms() {
    let net = FakeNet::new();
    let (a, e) = (member(&net, "a.test").await, member(&net, "e.test").await);
    let (alice, paul) = (a.user("alice").await, e.user("paul").await);
    alice.room(named("Cantine")).await;
    e.user("pia.durand").await;
    for term in ["alice", "durand", "@alice:a.test"] {
        let found = paul.ok("POST", SEARCH, json!({ "search_term": term })).await;
        assert_eq!(found, json!({ "results": [], "limited": false }), "{term}");
    }
    assert_eq!(paul.forums("").await, Vec::<String>::new());
    for path in ["/publicRooms", "/publicRooms?server=a.test"] {
        let page = paul.ok("GET", path, Value::Null).await;
        assert_eq!((&page["chunk"], &page["total_room_count_estimate"]), (&json!([]), &json!(0)), "{path}");
    }
    // Strangers are no better off, and nobody asks for them elsewhere.
    for place in [&a, &e] {
        for path in ["/publicRooms", "/publicRooms?server=a.test"] {
            let (status, said) = place.call("", "GET", path, Value::Null).await;
            assert_eq!((status.as_u16(), &said["errcode"]), (401, &json!("M_MISSING_TOKEN")), "{said}");
        }
    }
    let page = alice.ok("GET", "/publicRooms", Value::Null).await;
    assert_eq!(names(&page), ["Cantine"]);
    // Agents do not find externals either, and who asks from another server of externals gets nothing.
    assert_eq!(alice.finds("durand").await, Vec::<String>::new());
    let body = json!({ "requester": "@eve:x.test", "search_term": "alice" });
    let (status, found) = ask(&a, "x.test", PEOPLE, body).await;
    assert_eq!((status, found), (StatusCode::OK, json!({ "results": [], "limited": false })));
    let (status, page) = ask(&a, "x.test", "/_matrix/federation/v1/publicRooms", json!({})).await;
    assert_eq!((status, &page["chunk"]), (StatusCode::OK, &json!([])));
}

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
    assert_eq!(alice.finds("martin").await, std::slice::from_ref(&bob.id), "whoever answers is heard");
    let begin = a.world.instant();
    for term in ["bob.m", "bob.mar", "bob.mart"] {
        assert_eq!(alice.finds(term).await, std::slice::from_ref(&bob.id));
    }
    let took = a.world.instant() - begin;
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    slow.kill();
}

#[tokio::test]
async fn row_72_how_accounts_stand_here_and_elsewhere() {
    let net = FakeNet::new();
    let (a, b) = (ending(&net, "a.test").await, ending(&net, "b.test").await);
    let (alice, anne, bob, bea) =
        (a.user("alice").await, a.user("anne").await, b.user("bob").await, b.user("bea").await);
    let gone = Deactivation { at: 1, erase: false, addresses: Vec::new() };
    a.accounts.update_user(&anne.account(), |user| user.deactivated = Some(gone.clone())).await.unwrap();
    b.accounts.say_end(&bob.account(), Some(b.world.now()), None).await.unwrap();
    let asked = json!({ "user_ids": [
        alice.id, anne.id, bob.id, bea.id, "@nobody:a.test", "@nobody:b.test", "@far:nowhere.test", "nonsense", 7,
    ]});
    let info = |expired: bool, deactivated: bool| json!({ "expired": expired, "deactivated": deactivated });
    let expected = json!({
        (&alice.id): info(false, false), (&anne.id): info(false, true),
        (&bob.id): info(true, false), (&bea.id): info(false, false),
    });
    assert_eq!(alice.ok("POST", MANY, asked.clone()).await, expected);
    for (user, info) in [(&anne, info(false, true)), (&bob, info(true, false))] {
        let path = format!("/_matrix/client/unstable/user/{}/info", user.id);
        assert_eq!(alice.ok("GET", &path, Value::Null).await, info);
    }
    let unknown = "/_matrix/client/unstable/user/@nobody:b.test/info";
    let (status, said) = alice.call("GET", unknown, Value::Null).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (404, &json!("M_NOT_FOUND")));
    let many: Vec<String> = (0..501).map(|n| format!("@u{n}:a.test")).collect();
    for wrong in [json!({}), json!({ "user_ids": "@alice:a.test" }), json!({ "user_ids": many })] {
        let (status, said) = alice.call("POST", MANY, wrong).await;
        assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_PARAM")), "{said}");
    }
    assert_eq!(a.call("", "POST", MANY, asked).await.0, StatusCode::UNAUTHORIZED);
    // To another server each answers for its own.
    let few = json!({ "user_ids": [alice.id, anne.id, bob.id, "nonsense"] });
    let (status, infos) = ask(&a, "p.test", INFOS, few).await;
    let own = json!({ (&alice.id): info(false, false), (&anne.id): info(false, true) });
    assert_eq!((status, infos), (StatusCode::OK, own));
    let (status, said) = ask(&a, "p.test", INFOS, json!({ "user_ids": many })).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_PARAM")));
    // What a server says of users of others is not passed on.
    let told = json!({ "@hal:h.test": info(false, false), (&bob.id): info(false, false) });
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listening = Arc::clone(&heard);
    let answer = async move |Json(asked): Json<Value>| {
        listening.lock().unwrap().push(asked["user_ids"].as_array().unwrap().len());
        Json(told.clone())
    };
    let liar = stranger(&net, "h.test", Router::new().route(INFOS, post(answer)));
    let asked = json!({ "user_ids": ["@hal:h.test", "@hel:h.test", bob.id] });
    let expected = json!({ "@hal:h.test": info(false, false), (&bob.id): info(true, false) });
    assert_eq!(alice.ok("POST", MANY, asked).await, expected);
    let written = json!({ "user_ids": ["@hal:h.test", "@hal:H.test", "@hal:h.TEST"] });
    alice.ok("POST", MANY, written).await;
    assert_eq!(*heard.lock().unwrap(), [2, 3], "a server is asked once, however its name is written");
    liar.kill();
}

#[tokio::test]
async fn row_74_one_list_has_the_public_rooms_of_the_network() {
    let net = FakeNet::new();
    let (a, b) = (member(&net, "a.test").await, member(&net, "b.test").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let (cafe, canteen) = (alice.room(named("Café")).await, bob.room(named("Réunions")).await);
    let mut own = named("Entre nous");
    own["creation_content"] = json!({ "m.federate": false });
    bob.room(own).await;
    bob.room(json!({ "preset": "public_chat", "name": "Not listed" })).await;
    assert_eq!(bob.join(&cafe, "a.test").await.0, StatusCode::OK);
    alice.sees(&cafe, &bob.id, "join").await;
    // Somebody else says what a room of this or of another server is called.
    let room = |id: &str, name: &str, joined: u32| {
        json!({
            "room_id": id, "name": name, "num_joined_members": joined, "world_readable": false, "guest_can_join": false,
        })
    };
    let told = json!({ "chunk": [
        room(&canteen, "Fausses réunions", 900), room(&cafe, "Faux café", 900), room("!h:h.test", &"h".repeat(9_999), 1),
    ]});
    let other = post(async move || Json(told.clone()));
    let other = stranger(&net, "h.test", Router::new().route("/_matrix/federation/v1/publicRooms", other));
    let mut all = alice.forums("").await;
    assert_eq!((all.remove(0).as_str(), all.len()), ("Café", 2), "the biggest first: {all:?}");
    assert!(all.contains(&"Réunions".to_owned()) && all.contains(&"h".repeat(255)));
    assert_eq!(alice.forums("REUNION").await, ["Réunions"]);
    assert_eq!(bob.forums("entre").await, ["Entre nous"], "its own users see it");
    let listed = bob.ok("POST", "/publicRooms", json!({})).await;
    assert_eq!(names(&listed).len(), 2, "without being asked for more, a server lists its own");
    let theirs = alice.ok("POST", "/publicRooms?server=b.test", json!({})).await;
    assert_eq!(names(&theirs), ["Réunions"], "rooms of one server are listed to nobody else");
    // Pages: each room once, forth and back.
    let page = |since: Option<String>| {
        let mut body = json!({ "include_all_networks": true, "limit": 1 });
        if let Some(since) = since {
            body["since"] = json!(since);
        }
        alice.ok("POST", "/publicRooms", body)
    };
    let first = page(None).await;
    let second = page(Some(text(&first["next_batch"]))).await;
    let third = page(Some(text(&second["next_batch"]))).await;
    assert_eq!((&first["total_room_count_estimate"], &third["next_batch"]), (&json!(3), &Value::Null));
    let seen: Vec<String> = [&first, &second, &third].into_iter().flat_map(names).collect();
    assert_eq!(seen, [vec!["Café".to_owned()], all].concat());
    assert_eq!(page(Some(text(&third["prev_batch"]))).await["chunk"], second["chunk"]);
    let wrong = json!({ "include_all_networks": true, "since": "x" });
    assert_eq!(alice.call("POST", "/publicRooms", wrong).await.0, StatusCode::BAD_REQUEST);
    // What a server that is gone has listed is shown for a while.
    other.kill();
    net.unroute("h.test");
    later(Duration::from_secs(61)).await;
    assert_eq!(alice.forums("hhh").await.len(), 1);
}

#[tokio::test]
async fn row_74_a_room_of_the_list_is_entered_without_a_word_of_its_server() {
    let net = FakeNet::new();
    let (a, b) = (member(&net, "a.test").await, member(&net, "b.test").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let mut request = named("Nouveau");
    // The ids of such rooms do not say where they are.
    request["room_version"] = json!("12");
    let room = bob.room(request).await;
    assert_eq!(alice.call("POST", &format!("/join/{room}"), json!({})).await.0, StatusCode::NOT_FOUND);
    assert_eq!(alice.forums("nouveau").await, ["Nouveau"]);
    alice.ok("POST", &format!("/join/{room}"), json!({})).await;
    bob.sees(&room, &alice.id, "join").await;
}

#[tokio::test]
async fn elsewhere_there_is_no_directory_of_a_network() {
    let net = FakeNet::new();
    let pinned = closed("").replace("allow = ", "# ");
    let plain = closed("");
    let places = [
        // With the rules of the network, but open to the world; closed, but without them.
        server_with(&net, "a.test", &pinned).await,
        Place::start(&net, "a.test", &plain).await,
    ];
    for place in &places {
        let (alice, _) = (place.user("alice").await, place.user("martin").await);
        assert_eq!(alice.finds("martin").await, Vec::<String>::new());
        for (method, path) in [("POST", MANY), ("GET", "/_matrix/client/unstable/user/@alice:a.test/info")] {
            let body = if method == "POST" { json!({ "user_ids": [alice.id] }) } else { Value::Null };
            let (status, said) = alice.call(method, path, body).await;
            assert_eq!((status.as_u16(), &said["errcode"]), (404, &json!("M_UNRECOGNIZED")), "{path}");
        }
        for path in [PEOPLE, OLD_PEOPLE, INFOS] {
            let body = json!({ "requester": "@p:p.test", "search_term": "martin", "user_ids": [] });
            let (status, said) = ask(place, "p.test", path, body).await;
            assert_eq!((status.as_u16(), &said["errcode"]), (404, &json!("M_UNRECOGNIZED")), "{path}");
        }
    }
}
