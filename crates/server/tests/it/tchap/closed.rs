//! Rows 102 and 103, and what strangers try (attack families 25, 26, 31, 32 and 40): who is not of the network is nobody here.

use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Place,
    accounts::{prove, register},
    eventually, forbidden, forum,
    ministry::{Ministry, PASSWORD},
    server_with,
    sign_up::{NETWORK, invite, make_room},
};

const LISTED: &str = "[federation]\nallow = [\"a.test\", \"b.test\"]\n";

#[tokio::test]
async fn row_102_servers_off_the_list_are_refused_both_ways() {
    let net = FakeNet::new();
    let (a, b) = (server_with(&net, "a.test", LISTED).await, server_with(&net, "b.test", LISTED).await);
    let m = Place::start(&net, "m.test", "").await;
    let (alice, bob, mary) = (a.user("alice").await, b.user("bob").await, m.user("mary").await);
    let (room, far) = (alice.room(forum()).await, mary.room(forum()).await);
    assert_eq!(bob.join(&room, "a.test").await.0, StatusCode::OK);
    // From here.
    alice.refused("POST", &format!("/rooms/{room}/invite"), json!({ "user_id": mary.id })).await;
    assert_ne!(alice.join(&far, "m.test").await.0, StatusCode::OK);
    for path in [format!("/profile/{}", mary.id), "/publicRooms?server=m.test".to_owned()] {
        assert_ne!(alice.call("GET", &path, Value::Null).await.0, StatusCode::OK, "{path}");
    }
    let (_, keys) = alice.call("POST", "/keys/query", json!({ "device_keys": { &mary.id: [] } })).await;
    assert_eq!(keys["device_keys"].get(&mary.id), None, "{keys}");
    // From there.
    forbidden(mary.join(&room, "a.test").await);
    forbidden(mary.call("POST", &format!("/rooms/{far}/invite"), json!({ "user_id": alice.id })).await);
    for path in [format!("/profile/{}", alice.id), "/publicRooms?server=a.test".to_owned()] {
        assert_ne!(mary.call("GET", &path, Value::Null).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(alice.membership(&room, &mary.id).await, None);
    assert!(!alice.is_invited(&far).await);
}

#[tokio::test]
async fn row_103_there_are_no_guests_and_nobody_is_told_who_is_there() {
    let net = FakeNet::new();
    let a = server_with(&net, "a.test", "[delivery]\npresence = false").await;
    let (alice, anne) = (a.user("alice").await, a.user("anne").await);
    let room = alice.room(json!({})).await;
    anne.enter(&room, &alice).await;
    let status = format!("/presence/{}/status", alice.id);
    alice.refused("PUT", &status, json!({ "presence": "online" })).await;
    for user in [&alice, &anne] {
        user.refused("GET", &status, Value::Null).await;
        let said = user.ok("GET", "/sync?timeout=0&set_presence=online", Value::Null).await;
        assert!(said["presence"]["events"].as_array().is_none_or(Vec::is_empty), "{said}");
    }
    forbidden(a.call("", "POST", "/register?kind=guest", json!({})).await);
}

/// An identity server outside says whose an address is.
#[tokio::test]
async fn family_25_an_identity_server_brings_no_outsider_in() {
    let net = FakeNet::new();
    let a = Ministry::on(&net, "a.test", LISTED).await;
    let mut x = Ministry::on(&net, "x.test", "").await;
    let (alice, carol) = (a.agent("alice").await, x.agent("carol").await);
    let token = x.member(&carol).await;
    let v2 = "/_matrix/identity/v2";
    let body = json!({ "client_secret": "a-secret", "email": "carol@home.example", "send_attempt": 1 });
    let asked = x.call(&token, "POST", &format!("{v2}/validate/email/requestToken"), body).await.ok();
    let mail = x.mail().await;
    let code = mail.text.split_once("token=").unwrap().1.split('&').next().unwrap();
    let mut proof = json!({ "sid": asked["sid"], "client_secret": "a-secret", "token": code });
    x.call("", "POST", &format!("{v2}/validate/email/submitToken"), proof.clone()).await.ok();
    proof["mxid"] = json!(carol.id);
    x.call(&token, "POST", &format!("{v2}/3pid/bind"), proof).await.ok();

    let path = format!("/user/{}/openid/request_token", alice.id);
    let openid = a.call(&alice.token, "POST", &path, json!({})).await.ok();
    let registered = x.call("", "POST", &format!("{v2}/account/register"), openid).await;
    let room = make_room(&a, &alice, json!({})).await;
    let body = json!({
        "id_server": "x.test", "id_access_token": registered.json["token"].as_str().unwrap_or("none"),
        "medium": "email", "address": "carol@home.example",
    });
    let invited = a.call(&alice.token, "POST", &format!("/rooms/{room}/invite"), body).await;
    assert!(invited.status.is_client_error(), "{}", invited.text);
    let path = format!("/rooms/{room}/state");
    let state = a.call(&alice.token, "GET", &path, Value::Null).await.ok();
    assert!(!state.to_string().contains("@carol:x.test"), "{state}");
    let said = x.call(&carol.token, "GET", "/sync?timeout=0", Value::Null).await.ok();
    assert!(said["rooms"]["invite"][&room].is_null(), "{said}");
}

#[tokio::test]
async fn family_26_invites_are_bounded_are_only_words_and_reach_nobody_who_has_left() {
    let net = FakeNet::new();
    let a = Ministry::on(&net, "a.test", "[client.rates]\ninvite = { per_second = 0.0, burst = 0 }").await;
    let rates = "[federation.rates]\ninvites_to_user = { per_second = 0.001, burst = 3 }";
    let b = Ministry::on(&net, "b.test", rates).await;
    let (alice, bob, gone) = (a.agent("alice").await, b.agent("bob").await, b.agent("gone").await);
    let invite = async |name: &str, whom: &str| {
        let room = make_room(&a, &alice, json!({ "name": name, "topic": "\u{202e}x" })).await;
        let path = format!("/rooms/{room}/invite");
        (a.call(&alice.token, "POST", &path, json!({ "user_id": whom })).await, room)
    };
    b.accounts.deactivate(&gone.id, chappe_accounts::Erase::No).await.unwrap();
    invite("x", gone.id.as_str()).await.0.refused(403, "M_FORBIDDEN");
    let name = "<script>alert(1)</script>";
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let (answer, room) = invite(name, bob.id.as_str()).await;
        answer.ok();
        rooms.push(room);
    }
    let (answer, refused) = invite(name, bob.id.as_str()).await;
    assert_ne!(answer.status, StatusCode::OK, "{}", answer.text);
    let sync = async || b.call(&bob.token, "GET", "/sync?timeout=0", Value::Null).await;
    let shown = sync().await;
    assert_eq!(shown.headers["content-type"], "application/json");
    let shown = shown.ok();
    for room in &rooms {
        let state = shown["rooms"]["invite"][room]["invite_state"]["events"].as_array().unwrap();
        assert!(state.iter().any(|event| event["content"] == json!({ "name": name })), "{state:?}");
    }
    assert!(shown["rooms"]["invite"][&refused].is_null());
    // Whoever is ignored is not heard any more, whatever was there.
    let ignored = json!({ "ignored_users": { alice.id.as_str(): {} } });
    let path = format!("/user/{}/account_data/m.ignored_user_list", bob.id);
    b.call(&bob.token, "PUT", &path, ignored).await.ok();
    let said = sync().await.ok();
    assert!(said["rooms"]["invite"].as_object().is_none_or(serde_json::Map::is_empty), "{said}");
}

#[tokio::test]
async fn family_32_a_password_is_reset_by_its_own_address_and_once() {
    let [mut a, ..] = super::sign_up::network(&FakeNet::new(), "").await;
    let (alice, _) = register(&mut a, "alice@a.gouv.fr", PASSWORD).await;
    let (eve, _) = register(&mut a, "eve@a.gouv.fr", PASSWORD).await;
    let path = "/account/password/email/requestToken";
    let proof = prove(&mut a, path, "eve@a.gouv.fr").await;
    let reset = async |password: &str, creds: &Value| {
        let mut body = json!({ "new_password": password });
        let first = a.call("", "POST", "/account/password", body.clone()).await;
        body["auth"] = json!({
            "type": "m.login.email.identity", "session": first.json["session"], "threepid_creds": creds,
            "user": alice, "identifier": { "type": "m.id.user", "user": alice },
        });
        a.call("", "POST", "/account/password", body).await
    };
    let log_in = async |user: &str, password: &str| {
        let body = json!({ "type": "m.login.password", "password": password,
            "identifier": { "type": "m.id.user", "user": user } });
        a.call("", "POST", "/login", body).await
    };
    for (sid, secret) in [(json!("1"), "a-secret"), (proof["sid"].clone(), "another")] {
        let made_up = json!({ "sid": sid, "client_secret": secret });
        assert_eq!(reset("guessed horse battery", &made_up).await.status, StatusCode::UNAUTHORIZED);
    }
    // Naming somebody else beside a good proof changes nothing: it is the address that says whose password.
    reset("another horse battery", &proof).await.ok();
    log_in(&eve, "another horse battery").await.ok();
    log_in(&alice, PASSWORD).await.ok();
    assert_ne!(reset("a third horse battery", &proof).await.status, StatusCode::OK, "it was used");
    log_in(&alice, PASSWORD).await.ok();
    assert_ne!(log_in(&eve, "a third horse battery").await.status, StatusCode::OK);
}

#[tokio::test]
async fn family_40_an_administrator_of_another_server_is_nobody_here() {
    let net = FakeNet::new();
    let (a, b) = (Ministry::on(&net, "a.test", "").await, Ministry::on(&net, "b.test", "").await);
    let (root, bob) = (a.administrator("root").await, b.agent("bob").await);
    let path = format!("/_synapse/admin/v2/users/{}", bob.id);
    for (method, path) in [
        ("GET", "/_synapse/admin/v2/users".to_owned()),
        ("PUT", path.clone()),
        ("POST", format!("/_synapse/admin/v1/deactivate/{}", bob.id)),
        ("POST", format!("/_chappe/admin/v1/users/{}/log_out", bob.id)),
    ] {
        b.call(&root.token, method, &path, json!({})).await.refused(401, "M_UNKNOWN_TOKEN");
    }
    for (method, path) in [
        ("PUT", path),
        ("POST", format!("/_synapse/admin/v1/deactivate/{}", bob.id)),
        ("POST", format!("/_synapse/admin/v1/reset_password/{}", bob.id)),
        ("POST", format!("/_chappe/admin/v1/users/{}/log_out", bob.id)),
    ] {
        let body = json!({ "new_password": "another horse battery", "admin": true });
        let answer = a.call(&root.token, method, &path, body).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.text);
    }
    // What is said in rooms is no command, not even by an administrator.
    let room = make_room(&b, &bob, json!({ "preset": "public_chat" })).await;
    a.call(&root.token, "POST", &format!("/join/{room}?server_name=b.test"), json!({})).await.ok();
    let say = format!("/rooms/{room}/send/m.room.message/1");
    let said = json!({ "msgtype": "m.text", "body": "!deactivate @bob:b.test" });
    a.call(&root.token, "PUT", &say, said).await.ok();
    eventually("bob hears it", async || {
        let path = format!("/rooms/{room}/messages?dir=b&limit=20");
        b.call(&bob.token, "GET", &path, Value::Null).await.text.contains("!deactivate")
    })
    .await;
    b.call(&bob.token, "GET", "/account/whoami", Value::Null).await.ok();
}

/// Attack family 31: an address is one address from the mail to the account.
#[tokio::test]
async fn family_31_an_address_is_the_same_from_the_mail_to_the_account() {
    let mut a = Ministry::on(&FakeNet::new(), "a.test", NETWORK).await;
    a.verb(&["domains", "add", "a.gouv.fr"]).await.unwrap();
    let (id, alice) = register(&mut a, "Alice@A.gouv.fr", PASSWORD).await;
    for same in ["alice@a.gouv.fr", "ALICE@a.gouv.fr", "alice@A.GOUV.FR"] {
        let body = json!({ "client_secret": "a-secret", "email": same, "send_attempt": 1 });
        a.call("", "POST", "/register/email/requestToken", body).await.refused(400, "M_THREEPID_IN_USE");
        let log_in = json!({ "type": "m.login.password", "password": PASSWORD,
            "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": same } });
        assert_eq!(a.call("", "POST", "/login", log_in).await.ok()["user_id"], json!(id));
    }
    // Another of the same look is another.
    let (other, _) = register(&mut a, "alice+x@a.gouv.fr", PASSWORD).await;
    assert_ne!(other, id);
    // A session is of the address that was mailed, whatever is asked for later under the same secret.
    let wanted = async |address: &str| {
        let body = json!({ "client_secret": "one-secret", "email": address, "send_attempt": 1 });
        a.call("", "POST", "/register/email/requestToken", body).await
    };
    let (first, second) = (wanted("max@a.gouv.fr").await.ok(), wanted("minister@a.gouv.fr").await.ok());
    assert_ne!(first["sid"], second["sid"]);
    let room = make_room(&a, &alice, super::room_with("unrestricted")).await;
    for hostile in ["a@evil.example@a.gouv.fr", "\"a@evil.example\"@a.gouv.fr", "a@a.gouv.fr\r\nBcc: b@x.fr"]
    {
        assert_eq!(invite(&a, &alice, &room, hostile).await.status, StatusCode::BAD_REQUEST, "{hostile}");
        assert_eq!(wanted(hostile).await.status, StatusCode::BAD_REQUEST, "{hostile}");
    }
    for expected in ["max@a.gouv.fr", "minister@a.gouv.fr"] {
        assert_eq!(a.mail().await.to, [expected]);
    }
    a.no_mail().await;
}
