//! What a service does as its users, and what nobody else may do in their names.

use serde_json::{Value, json};

use super::bridge::{AS_TOKEN, Port, WHOLE};

const SERVICE: &str = "m.login.application_service";

#[tokio::test]
async fn a_service_makes_users_of_its_namespace_and_nobody_else_does() {
    let port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let make = |name: &str| json!({ "type": SERVICE, "username": name });
    let register = |token| (token, "POST", "/register");
    port.refused(register(""), make("_irc_ann"), (401, "M_MISSING_TOKEN")).await;
    port.refused(register(&alice), make("_irc_ann"), (401, "M_UNKNOWN_TOKEN")).await;
    port.refused(register("hs-secret"), make("_irc_ann"), (401, "M_UNKNOWN_TOKEN")).await;
    port.refused(register(AS_TOKEN), make("ann"), (400, "M_EXCLUSIVE")).await;
    port.refused(register(AS_TOKEN), json!({ "type": SERVICE }), (400, "M_MISSING_PARAM")).await;
    for taken in ["_irc_ann", "irc-bot"] {
        let auth = json!({ "type": "m.login.dummy" });
        let person = json!({ "username": taken, "password": "correct horse battery", "auth": auth });
        port.refused(register(""), person, (400, "M_EXCLUSIVE")).await;
    }
    let quiet = json!({ "type": SERVICE, "username": "_irc_ann", "inhibit_login": true });
    let made = port.ok(AS_TOKEN, "POST", "/register", quiet).await;
    assert_eq!((&made["user_id"], made.get("access_token")), (&json!("@_irc_ann:a.test"), None));
    port.refused(register(AS_TOKEN), make("_irc_ann"), (400, "M_USER_IN_USE")).await;
    let loud = port.ok(AS_TOKEN, "POST", "/register", make("_irc_bob")).await;
    let own = loud["access_token"].as_str().unwrap();
    assert_eq!(port.ok(own, "GET", "/account/whoami", Value::Null).await["user_id"], "@_irc_bob:a.test");
}

#[tokio::test]
async fn a_service_logs_its_users_in_and_only_them() {
    let port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    port.ghost("_irc_ann").await;
    let flows = port.ok("", "GET", "/login", Value::Null).await;
    assert!(flows["flows"].as_array().unwrap().contains(&json!({ "type": SERVICE })));
    let login = |user: &str| {
        let identifier = json!({ "type": "m.id.user", "user": user });
        json!({ "type": SERVICE, "identifier": identifier, "device_id": "BRIDGE" })
    };
    let ask = |token| (token, "POST", "/login");
    port.refused(ask(""), login("_irc_ann"), (401, "M_MISSING_TOKEN")).await;
    port.refused(ask(&alice), login("alice"), (401, "M_UNKNOWN_TOKEN")).await;
    port.refused(ask(AS_TOKEN), login("alice"), (400, "M_EXCLUSIVE")).await;
    port.refused(ask(AS_TOKEN), login("_irc_nobody"), (404, "M_NOT_FOUND")).await;
    let session = port.ok(AS_TOKEN, "POST", "/login", login("@_irc_ann:a.test")).await;
    assert_eq!((&session["user_id"], &session["device_id"]), (&json!("@_irc_ann:a.test"), &json!("BRIDGE")));
    let own = port.ok(AS_TOKEN, "POST", "/login", login("irc-bot")).await;
    assert_eq!(own["user_id"], "@irc-bot:a.test");
}

#[tokio::test]
async fn masquerading_ends_where_the_namespace_does() {
    let port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    port.ghost("_irc_ann").await;
    let who =
        async |query: &str| port.call(AS_TOKEN, "GET", &format!("/account/whoami{query}"), Value::Null).await;
    assert_eq!(who("").await.1["user_id"], "@irc-bot:a.test");
    let (status, said) = who("?user_id=%40_irc_ann%3Aa.test").await;
    assert_eq!((status, &said["user_id"], said.get("device_id")), (200, &json!("@_irc_ann:a.test"), None));
    for foreign in ["@alice:a.test", "@_irc_nobody:a.test", "@_irc_ann:b.test", "@x:a.test"] {
        let (status, said) = who(&format!("?user_id={foreign}")).await;
        assert_eq!((status, &said["errcode"]), (403, &json!("M_FORBIDDEN")), "{foreign}");
    }
    assert_eq!(who("?user_id=nonsense").await.0, 400);
    for name in ["device_id", "org.matrix.msc3202.device_id"] {
        let (status, said) = who(&format!("?user_id=@_irc_ann:a.test&{name}=D{}", name.len())).await;
        assert_eq!((status, &said["errcode"]), (400, &json!("M_UNKNOWN_DEVICE")));
        let device = format!("/devices/D{}?user_id=@_irc_ann:a.test", name.len());
        assert_eq!(port.call(AS_TOKEN, "PUT", &device, json!({})).await.0, 201);
        let (status, said) = who(&format!("?user_id=@_irc_ann:a.test&{name}=D{}", name.len())).await;
        assert_eq!((status, said["device_id"].as_str().unwrap().len() > 1), (200, true));
    }
    let (status, _) = who("?device_id=D9").await;
    assert_eq!(status, 400, "another user's device");
    let ignored = port.ok(&alice, "GET", "/account/whoami?user_id=@_irc_ann:a.test", Value::Null).await;
    assert_eq!(ignored["user_id"], "@alice:a.test", "people cannot masquerade");
    let (status, _) = port.call("hs-secret", "GET", "/account/whoami", Value::Null).await;
    assert_eq!(status, 401, "the server's token is none of a client");
}

#[tokio::test]
async fn a_service_manages_devices_and_keys_without_passwords() {
    let port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    port.ghost("_irc_ann").await;
    let path = |device: &str| format!("/devices/{device}?user_id=@_irc_ann:a.test");
    let name = json!({ "display_name": "Bridge" });
    assert_eq!(port.call(AS_TOKEN, "PUT", &path("ONE"), name.clone()).await.0, 201);
    assert_eq!(port.call(AS_TOKEN, "PUT", &path("ONE"), json!({ "display_name": "B" })).await.0, 200);
    assert_eq!(port.ok(AS_TOKEN, "GET", &path("ONE"), Value::Null).await["display_name"], "B");
    port.refused((&alice, "PUT", "/devices/ONE"), name.clone(), (404, "M_NOT_FOUND")).await;
    port.ok(AS_TOKEN, "PUT", &path("TWO"), name).await;
    port.ok(AS_TOKEN, "DELETE", &path("ONE"), json!({})).await;
    let devices = json!({ "devices": ["TWO"] });
    port.ok(AS_TOKEN, "POST", "/delete_devices?user_id=@_irc_ann:a.test", devices.clone()).await;
    let left = port.ok(AS_TOKEN, "GET", "/devices?user_id=@_irc_ann:a.test", Value::Null).await;
    assert_eq!(left["devices"], json!([]));
    assert_eq!(port.call(&alice, "POST", "/delete_devices", devices).await.0, 401, "people are asked");
    let closed = json!({ "erase": false });
    port.ok(AS_TOKEN, "POST", "/account/deactivate?user_id=@_irc_ann:a.test", closed).await;
    let (status, said) =
        port.call(AS_TOKEN, "GET", "/account/whoami?user_id=@_irc_ann:a.test", Value::Null).await;
    assert_eq!((status, &said["errcode"]), (403, &json!("M_USER_DEACTIVATED")));
}

#[tokio::test]
async fn a_service_of_everybody_closes_nobodys_account() {
    let everybody = "namespaces: { users: [{ exclusive: false, regex: '.*' }] }\n";
    let port = Port::open(everybody, "").await;
    let alice = port.person("alice").await;
    port.ok(AS_TOKEN, "GET", "/account/whoami?user_id=@alice:a.test", Value::Null).await;
    let path = "/account/deactivate?user_id=@alice:a.test";
    assert_eq!(port.call(AS_TOKEN, "POST", path, json!({})).await.0, 401, "the password is asked for");
    port.ok(&alice, "GET", "/account/whoami", Value::Null).await;
}

#[tokio::test]
async fn services_say_when_something_happened_and_people_do_not() {
    let port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let room = port.room(&alice, json!({ "preset": "public_chat" })).await;
    port.ok(AS_TOKEN, "POST", &format!("/join/{room}"), json!({})).await;
    let content = json!({ "msgtype": "m.text", "body": "old" });
    let time = async |token: &str, path: &str| {
        let sent = port.ok(token, "PUT", path, content.clone()).await;
        let event = format!("/rooms/{room}/event/{}", sent["event_id"].as_str().unwrap());
        port.ok(&alice, "GET", &event, Value::Null).await["origin_server_ts"].as_u64().unwrap()
    };
    let message = |txn: &str, ts: &str| format!("/rooms/{room}/send/m.room.message/{txn}?ts={ts}");
    assert_eq!(time(AS_TOKEN, &message("1", "1641164400000")).await, 1_641_164_400_000);
    assert!(time(&alice, &message("2", "1641164400000")).await > 1_700_000_000_000);
    for bad in ["-1", "9007199254740992", "soon"] {
        let (status, _) = port.call(AS_TOKEN, "PUT", &message("3", bad), content.clone()).await;
        assert_eq!(status, 400, "{bad}");
    }
    let level = json!({ "users": { "@irc-bot:a.test": 100, "@alice:a.test": 100 } });
    port.ok(&alice, "PUT", &format!("/rooms/{room}/state/m.room.power_levels/"), level).await;
    let state = format!("/rooms/{room}/state/test.state/?ts=1641164400001");
    assert_eq!(time(AS_TOKEN, &state).await, 1_641_164_400_001);
    // What is told of a time finds it, in the order of the timeline where times are the same.
    let same: Vec<String> = {
        let mut all = Vec::new();
        for txn in ["4", "5"] {
            let sent = port.ok(AS_TOKEN, "PUT", &message(txn, "1641164500000"), content.clone()).await;
            all.push(sent["event_id"].as_str().unwrap().to_owned());
        }
        all
    };
    for (direction, event) in [("f", &same[0]), ("b", &same[1])] {
        let path =
            format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?ts=1641164500000&dir={direction}");
        assert_eq!(&port.ok(&alice, "GET", &path, Value::Null).await["event_id"], event, "{direction}");
    }
}

#[tokio::test]
async fn services_are_counted_as_their_registration_says() {
    let few = "[client.rates]\nmessage = { per_second = 0.001, burst = 2 }\n";
    let limited = WHOLE.replace("rate_limited: false", "rate_limited: true");
    for (registration, is_counted) in [(WHOLE, false), (limited.as_str(), true)] {
        let port = Port::open(registration, few).await;
        let alice = port.person("alice").await;
        port.ghost("_irc_ann").await;
        let room = port.room(&alice, json!({ "preset": "public_chat" })).await;
        port.ok(AS_TOKEN, "POST", &format!("/join/{room}?user_id=@_irc_ann:a.test"), json!({})).await;
        port.ok(AS_TOKEN, "POST", &format!("/join/{room}"), json!({})).await;
        let third = async |token: &str, query: &str| {
            let mut last = 0;
            for txn in 0..3 {
                let path = format!("/rooms/{room}/send/m.room.message/t{txn}{query}");
                last = port.call(token, "PUT", &path, json!({ "msgtype": "m.text", "body": "x" })).await.0;
            }
            last
        };
        assert_eq!(third(&alice, "").await, 429, "people are always counted");
        assert_eq!(third(AS_TOKEN, "").await, 200, "the service itself never is");
        let ghost = third(AS_TOKEN, "?user_id=@_irc_ann:a.test").await;
        assert_eq!(ghost, if is_counted { 429 } else { 200 });
    }
}

#[tokio::test]
async fn exclusive_aliases_are_the_services() {
    let port = Port::open(WHOLE, "").await;
    let alice = port.person("alice").await;
    let room = port.room(&alice, json!({ "preset": "public_chat" })).await;
    let of = |alias: &str| format!("/directory/room/{}", alias.replace('#', "%23"));
    let (own, free) = (of("#_irc_rust:a.test"), of("#rust:a.test"));
    let body = json!({ "room_id": room });
    port.refused((&alice, "PUT", &own), body.clone(), (400, "M_EXCLUSIVE")).await;
    let named = json!({ "room_alias_name": "_irc_rust" });
    port.refused((&alice, "POST", "/createRoom"), named, (400, "M_EXCLUSIVE")).await;
    port.refused((AS_TOKEN, "PUT", &free), body.clone(), (400, "M_EXCLUSIVE")).await;
    port.ok(AS_TOKEN, "PUT", &own, body.clone()).await;
    port.refused((&alice, "DELETE", &own), Value::Null, (400, "M_EXCLUSIVE")).await;
    port.ok(&alice, "PUT", &free, body).await;
    port.refused((AS_TOKEN, "DELETE", &free), Value::Null, (400, "M_EXCLUSIVE")).await;
    assert_eq!(port.ok("", "GET", &own, Value::Null).await["room_id"], json!(room));
    port.ok(AS_TOKEN, "DELETE", &own, Value::Null).await;
    assert_eq!(port.call("", "GET", &own, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_service_names_its_users_where_people_have_their_names_given() {
    let port = Port::open(WHOLE, "[client]\ndisplayname_changes = false").await;
    let alice = port.person("alice").await;
    port.ghost("_irc_ann").await;
    let named = json!({ "displayname": "Ann of IRC" });
    let own = "/profile/@_irc_ann:a.test/displayname?user_id=@_irc_ann:a.test";
    port.ok(AS_TOKEN, "PUT", own, named.clone()).await;
    let person = (alice.as_str(), "PUT", "/profile/@alice:a.test/displayname");
    port.refused(person, named, (400, "M_FORBIDDEN")).await;
}
