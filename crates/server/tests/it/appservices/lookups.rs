//! What a service is asked, and what people learn of it.

use http::StatusCode;
use serde_json::{Value, json};

use super::bridge::{AS_TOKEN, Port, WHOLE};

#[tokio::test]
async fn whoever_is_invited_and_not_there_is_asked_for() {
    let mut port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let room = port.room(&alice, json!({})).await;
    let invite = |user: &str| json!({ "user_id": user });
    let path = format!("/rooms/{room}/invite");
    port.ok(&alice, "POST", &path, invite("@_irc_ann:a.test")).await;
    let asked = port.bridge.next().await;
    assert_eq!(asked.path, "/_matrix/app/v1/users/%40_irc_ann%3Aa.test");
    port.ok(&alice, "POST", &path, invite("@nobody:a.test")).await;
    port.ghost("_irc_bob").await;
    port.ok(&alice, "POST", &path, invite("@_irc_bob:a.test")).await;
    loop {
        let asked = port.bridge.next().await;
        assert!(!asked.path.contains("nobody"), "not of its namespace");
        assert!(!asked.path.contains("/users/%40_irc_bob"), "who is there is not asked for");
        if asked.text.contains("@_irc_bob:a.test") {
            break;
        }
    }
}

#[tokio::test]
async fn aliases_are_made_by_their_service_when_somebody_looks_for_them() {
    let mut port = Port::open(WHOLE, "").await;
    let room = port.room(AS_TOKEN, json!({ "preset": "public_chat" })).await;
    let look = "/directory/room/%23_irc_rust:a.test";
    port.refused(("", "GET", look), Value::Null, (404, "M_NOT_FOUND")).await;
    let is_question = |path: &str| path == "/_matrix/app/v1/rooms/%23_irc_rust%3Aa.test";
    while !is_question(&port.bridge.next().await.path) {}
    // This time the service makes the alias before it says yes.
    port.bridge.then_say("/_matrix/app/v1/rooms", StatusCode::OK, json!({}));
    port.ok(AS_TOKEN, "PUT", look, json!({ "room_id": room })).await;
    assert_eq!(port.ok("", "GET", look, Value::Null).await["room_id"], json!(room));
    port.refused(("", "GET", "/directory/room/%23other:a.test"), Value::Null, (404, "M_NOT_FOUND")).await;
}

#[tokio::test]
async fn a_ping_goes_to_the_service_and_says_what_is_wrong() {
    let mut port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let path = |id: &str| format!("/_matrix/client/v1/appservice/{id}/ping");
    let (own, other) = (path("irc"), path("xmpp"));
    let body = json!({ "transaction_id": "meow" });
    let said = port.ok(AS_TOKEN, "POST", &own, body.clone()).await;
    assert!(said["duration_ms"].is_u64());
    let asked = port.bridge.next().await;
    assert_eq!((asked.path.as_str(), asked.body), ("/_matrix/app/v1/ping", body.clone()));
    port.refused(("", "POST", &own), body.clone(), (401, "M_MISSING_TOKEN")).await;
    port.refused((&alice, "POST", &own), body.clone(), (403, "M_FORBIDDEN")).await;
    port.refused((AS_TOKEN, "POST", &other), body.clone(), (403, "M_FORBIDDEN")).await;
    port.bridge.then_say("/_matrix/app/v1/ping", StatusCode::FORBIDDEN, json!({ "errcode": "M_FORBIDDEN" }));
    let (status, said) = port.call(AS_TOKEN, "POST", &own, body.clone()).await;
    assert_eq!((status, &said["errcode"], &said["status"]), (502, &json!("M_BAD_STATUS"), &json!(403)));
    assert_eq!(said["body"], "{\"errcode\":\"M_FORBIDDEN\"}");
    port.stop().await;
    port.register_as(|text| text.replace("url: http", "url: null # http"));
    port.start().await;
    port.refused((AS_TOKEN, "POST", &own), body, (400, "M_URL_NOT_SET")).await;
    port.ok(AS_TOKEN, "GET", "/account/whoami", Value::Null).await;
}

fn network() -> Value {
    json!({
        "user_fields": ["nick"], "location_fields": ["channel"], "icon": "mxc://a.test/x", "field_types": {},
        "instances": [{ "network_id": "libera", "desc": "Libera", "fields": {} }],
    })
}

#[tokio::test]
async fn third_party_networks_are_described_and_searched() {
    let mut port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    for path in ["protocols", "protocol/irc", "location/irc", "user/irc", "location?alias=%23_irc_x:a.test"] {
        let path = format!("/thirdparty/{path}");
        port.refused(("", "GET", &path), Value::Null, (401, "M_MISSING_TOKEN")).await;
    }
    let described = "/_matrix/app/v1/thirdparty/protocol/irc";
    port.bridge.then_say(described, StatusCode::OK, network());
    let all = port.ok(&alice, "GET", "/thirdparty/protocols", Value::Null).await;
    assert_eq!(all["irc"]["instances"][0]["instance_id"], "irc|libera");
    assert_eq!(all["irc"]["user_fields"], json!(["nick"]));
    port.bridge.then_say(described, StatusCode::OK, network());
    let one = port.ok(&alice, "GET", "/thirdparty/protocol/irc", Value::Null).await;
    assert_eq!(one, all["irc"]);
    port.bridge.then_say(described, StatusCode::OK, json!({ "instances": "many" }));
    let all = port.ok(&alice, "GET", "/thirdparty/protocols", Value::Null).await;
    assert_eq!(all, json!({}), "what is no description is left out");
    port.refused((&alice, "GET", "/thirdparty/protocol/xmpp"), Value::Null, (404, "M_NOT_FOUND")).await;

    let place = json!({ "alias": "#_irc_rust:a.test", "protocol": "irc", "fields": { "channel": "#rust" } });
    let person = json!({ "userid": "@_irc_ann:a.test", "protocol": "irc", "fields": { "nick": "ann" } });
    for (path, service, found) in [
        ("location/irc?channel=%23rust", "location/irc?channel=%23rust", &place),
        ("user/irc?nick=ann", "user/irc?nick=ann", &person),
        ("location?alias=%23_irc_rust:a.test", "location?alias=%23_irc_rust%3Aa.test", &place),
        ("user?userid=@_irc_ann:a.test", "user?userid=%40_irc_ann%3Aa.test", &person),
    ] {
        let path = format!("/thirdparty/{path}");
        let (status, said) = port.call(&alice, "GET", &path, Value::Null).await;
        assert_eq!((status, &said["errcode"]), (404, &json!("M_NOT_FOUND")), "{path}");
        port.bridge.then_say("/_matrix/app/v1/thirdparty/", StatusCode::OK, json!([found, { "odd": 1 }]));
        assert_eq!(port.ok(&alice, "GET", &path, Value::Null).await, json!([found]), "{path}");
        let wanted = format!("/_matrix/app/v1/thirdparty/{service}");
        while port.bridge.next().await.path != wanted {}
    }
    let foreign = "/thirdparty/user?userid=@alice:a.test";
    port.refused((&alice, "GET", foreign), Value::Null, (404, "M_NOT_FOUND")).await;
}

#[tokio::test]
async fn a_service_lists_rooms_of_its_networks_apart() {
    let port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let room = port.room(AS_TOKEN, json!({ "preset": "public_chat", "name": "bridged" })).await;
    let public = port.room(&alice, json!({ "visibility": "public", "name": "public" })).await;
    let private = port.room(&alice, json!({ "name": "private" })).await;
    let path = |room: &str| format!("/directory/list/appservice/libera/{room}");
    let listed = json!({ "visibility": "public" });
    port.refused(("", "PUT", &path(&room)), listed.clone(), (401, "M_MISSING_TOKEN")).await;
    port.refused((&alice, "PUT", &path(&public)), listed.clone(), (403, "M_FORBIDDEN")).await;
    port.refused((AS_TOKEN, "PUT", &path(&private)), listed.clone(), (403, "M_FORBIDDEN")).await;
    port.refused((AS_TOKEN, "PUT", &path("!none:a.test")), listed.clone(), (404, "M_NOT_FOUND")).await;
    port.refused((AS_TOKEN, "PUT", &path(&room)), json!({ "visibility": "odd" }), (400, "M_INVALID_PARAM"))
        .await;
    port.ok(AS_TOKEN, "PUT", &path(&room), listed).await;
    let names = async |request: Value| {
        let said = port.ok(&alice, "POST", "/publicRooms", request).await;
        let names = said["chunk"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(json!({})).await, ["public"]);
    assert_eq!(names(json!({ "third_party_instance_id": "irc|libera" })).await, ["bridged"]);
    assert_eq!(names(json!({ "third_party_instance_id": "irc|oftc" })).await, [""; 0]);
    assert_eq!(names(json!({ "include_all_networks": true })).await, ["bridged", "public"]);
    port.ok(AS_TOKEN, "PUT", &path(&room), json!({ "visibility": "private" })).await;
    assert_eq!(names(json!({ "third_party_instance_id": "irc|libera" })).await, [""; 0]);
}
