//! Rows 1 to 18: where addresses belong, who may sign up with them, and what names follow from them.

use chappe_identity::{MapPattern, MapTarget};
use chappe_world::{FakeNet, Fate};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    accounts::{prove, register},
    eventually,
    ministry::{Agent, Answer, Ministry, PASSWORD},
    room_with,
};

/// What every server of the network says.
pub(super) const NETWORK: &str = r#"
[identity]
profile = "agents"
next_link_hosts = ["app.test"]
mails_per_ip = 0
mails_per_address = 0
[client.registration]
email = true
[client.rates]
registration = { per_second = 0.0, burst = 0 }
[rooms.access]
externals = ["e.test"]
"#;
pub(super) const PARTNER: &str = "paul@partner.example";
const WANTED: &str = "/register/email/requestToken";
const V2: &str = "/_matrix/identity/v2";

fn target(hs: &str) -> MapTarget {
    MapTarget { hs: hs.try_into().unwrap(), shadow_hs: None, requires_invite: hs == "e.test" }
}

async fn map(server: &Ministry, whom: &str, target: MapTarget) {
    server.house.service.identity().map().put(&whom.parse().unwrap(), &target).await.unwrap();
}

/// Two servers of agents and one of externals, which have one map.
pub(super) async fn network(net: &FakeNet, more: &str) -> [Ministry; 3] {
    let mut servers = Vec::new();
    for name in ["a.test", "b.test", "e.test"] {
        let server = Ministry::on(net, name, &format!("{NETWORK}{more}")).await;
        for (whom, hs) in [
            ("a.gouv.fr", "a.test"),
            ("b.gouv.fr", "b.test"),
            ("max@home.example", "b.test"),
            ("*", "e.test"),
        ] {
            map(&server, whom, target(hs)).await;
        }
        let pattern = MapPattern { regex: r".*@(.*\.|)d\.gouv\.fr".to_owned(), target: target("b.test") };
        server.house.service.identity().map().put_pattern(&pattern, None).await.unwrap();
        servers.push(server);
    }
    servers.try_into().ok().unwrap()
}

fn question(kind: &str, address: &str) -> String {
    let address: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
    format!("/_matrix/identity/api/v1/{kind}?medium=email&address={address}")
}

async fn info(server: &Ministry, address: &str) -> Answer {
    server.call("", "GET", &question("info", address), Value::Null).await
}

/// Whether a server knows of an invitation that lets an address in.
pub(super) async fn knows_of_invitation(server: &Ministry, address: &str) -> bool {
    let said = server.inside("GET", &question("internal-info", address), Value::Null).await.ok();
    said["invited"].as_bool().unwrap()
}

async fn ask_for_mail(server: &Ministry, address: &str) -> Answer {
    let body = json!({ "client_secret": "a-secret", "email": address, "send_attempt": 1 });
    server.call("", "POST", WANTED, body).await
}

/// Invites an address by the identity service of the inviter's server.
pub(super) async fn invite(server: &Ministry, agent: &Agent, room: &str, address: &str) -> Answer {
    let token = server.member(agent).await;
    let body = json!({
        "id_server": server.name, "id_access_token": token, "medium": "email", "address": address,
    });
    server.call(&agent.token, "POST", &format!("/rooms/{room}/invite"), body).await
}

pub(super) async fn make_room(server: &Ministry, agent: &Agent, request: Value) -> String {
    let made = server.call(&agent.token, "POST", "/createRoom", request).await.ok();
    made["room_id"].as_str().unwrap().to_owned()
}

/// Waits for an invite into a room, and joins.
pub(super) async fn accept(server: &Ministry, agent: &Agent, room: &str, via: &str) {
    eventually("the invitation is there", async || {
        let said = server.call(&agent.token, "GET", "/sync?timeout=0", Value::Null).await.ok();
        said["rooms"]["invite"][room].is_object()
    })
    .await;
    let path = format!("/join/{room}?server_name={via}");
    server.call(&agent.token, "POST", &path, json!({})).await.ok();
}

/// Whom an identity service finds by an address.
async fn find(server: &Ministry, token: &str, address: &str) -> Value {
    let details = server.call(token, "GET", &format!("{V2}/hash_details"), Value::Null).await.ok();
    let asked = format!("{address} email");
    let body = json!({ "addresses": [asked], "algorithm": "none", "pepper": details["lookup_pepper"] });
    server.call(token, "POST", &format!("{V2}/lookup"), body).await.ok()["mappings"][&asked].clone()
}

#[tokio::test]
async fn rows_1_2_3_every_server_says_alike_where_an_address_belongs() {
    let servers = network(&FakeNet::new(), "").await;
    for server in &servers {
        for (address, hs) in [
            ("jean@a.gouv.fr", "a.test"),
            ("JEAN@A.Gouv.Fr", "a.test"),
            ("jean@b.gouv.fr", "b.test"),
            ("jean@d.gouv.fr", "b.test"),
            ("jean@x.d.gouv.fr", "b.test"),
            ("max@home.example", "b.test"),
            ("paul@home.example", "e.test"),
            ("jean@evild.gouv.fr", "e.test"),
            ("jean@d.gouv.fr.evil.example", "e.test"),
        ] {
            let answer = info(server, address).await;
            assert_eq!(answer.headers["access-control-allow-origin"], "*");
            assert_eq!(answer.ok(), json!({ "hs": hs }), "{address} at {}", server.name);
        }
        let path = question("info", PARTNER);
        let preflight = server.call("", "OPTIONS", &path, Value::Null).await;
        assert!(preflight.status.is_success(), "{}", preflight.text);
        assert_eq!(preflight.headers["access-control-allow-origin"], "*");
        let private = question("internal-info", PARTNER);
        server.call("", "GET", &private, Value::Null).await.refused(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn row_6_of_an_account_that_should_move_both_servers_are_told() {
    let [mut a, mut b, _e] = network(&FakeNet::new(), "").await;
    let (id, _) = register(&mut a, "jean@a.gouv.fr", PASSWORD).await;
    let (_, bob) = register(&mut b, "bob@b.gouv.fr", PASSWORD).await;
    let token = b.member(&bob).await;
    eventually("b.test has been told whose the address is", async || {
        find(&b, &token, "jean@a.gouv.fr").await == json!(id)
    })
    .await;
    for server in [&a, &b] {
        assert_eq!(info(server, "jean@a.gouv.fr").await.ok(), json!({ "hs": "a.test" }));
        map(server, "a.gouv.fr", target("b.test")).await;
        let moved = json!({ "hs": "a.test", "new_hs": "b.test" });
        assert_eq!(info(server, "jean@a.gouv.fr").await.ok(), moved, "at {}", server.name);
        assert_eq!(info(server, "anne@a.gouv.fr").await.ok(), json!({ "hs": "b.test" }));
        let said = server.inside("GET", &question("internal-info", "jean@a.gouv.fr"), Value::Null).await.ok();
        assert_eq!(said, json!({ "hs": "b.test", "requires_invite": false, "invited": false }));
    }
}

#[tokio::test]
async fn row_7_a_server_for_callers_from_outside_is_named_to_everybody() {
    let [a, b, e] = network(&FakeNet::new(), "").await;
    let both = MapTarget { shadow_hs: Some("b.test".try_into().unwrap()), ..target("a.test") };
    for server in [&a, &b, &e] {
        map(server, "s.gouv.fr", both.clone()).await;
        let said = info(server, "jean@s.gouv.fr").await.ok();
        assert_eq!(said, json!({ "hs": "a.test", "shadow_hs": "b.test" }));
    }
    for server in [&a, &b] {
        ask_for_mail(server, "jean@s.gouv.fr").await.ok();
    }
    ask_for_mail(&e, "jean@s.gouv.fr").await.refused(403, "M_THREEPID_DENIED");
}

#[tokio::test]
async fn rows_8_9_nobody_signs_up_elsewhere_or_uninvited() {
    let [mut a, mut b, mut e] = network(&FakeNet::new(), "").await;
    for (server, address) in [
        (&a, "jean@b.gouv.fr"),
        (&a, PARTNER),
        (&b, "jean@a.gouv.fr"),
        (&b, "jean@a.gouv.fr.evil.example"),
        (&e, "jean@a.gouv.fr"),
        (&e, PARTNER),
    ] {
        ask_for_mail(server, address).await.refused(403, "M_THREEPID_DENIED");
    }
    // Whoever was mailed does not get in either once the address belongs elsewhere.
    let proof = prove(&mut a, WANTED, "jean@a.gouv.fr").await;
    map(&a, "a.gouv.fr", target("b.test")).await;
    let first = a.call("", "POST", "/register", json!({ "password": PASSWORD })).await;
    let auth = json!({
        "type": "m.login.email.identity", "session": first.json["session"], "threepid_creds": proof,
    });
    let refused = a.call("", "POST", "/register", json!({ "password": PASSWORD, "auth": auth })).await;
    assert_eq!(refused.json["errcode"], "M_THREEPID_DENIED", "{}", refused.text);
    for server in [&mut a, &mut b, &mut e] {
        server.no_mail().await;
    }
}

#[tokio::test]
async fn row_10_a_partner_is_invited_from_another_server_signs_up_and_finds_the_invitation() {
    let [mut a, _b, mut e] = network(&FakeNet::new(), "").await;
    let (_, alice) = register(&mut a, "alice@a.gouv.fr", PASSWORD).await;
    let room = make_room(&a, &alice, room_with("unrestricted")).await;
    invite(&a, &alice, &room, "Paul@Partner.example").await.ok();
    assert_eq!(a.mail().await.to, [PARTNER]);
    eventually("e.test knows", async || knows_of_invitation(&e, PARTNER).await).await;
    let (id, paul) = register(&mut e, PARTNER, PASSWORD).await;
    assert_eq!(id, "@paul-partner.example:e.test");
    accept(&e, &paul, &room, "a.test").await;
    let member = format!("/rooms/{room}/state/m.room.member/{id}");
    eventually("alice sees paul", async || {
        let said = a.call(&alice.token, "GET", &member, Value::Null).await;
        said.json["membership"] == "join"
    })
    .await;
    let token = a.member(&alice).await;
    eventually("a.test knows paul by his address", async || find(&a, &token, PARTNER).await == json!(id))
        .await;
    for server in [&a, &e] {
        assert!(!knows_of_invitation(server, PARTNER).await, "it was used");
    }
}

/// The identity service is each server's own; what can be away is the one that keeps the invitation.
#[tokio::test]
async fn row_11_nobody_signs_up_while_the_server_that_invited_is_away() {
    let net = FakeNet::new();
    let [mut a, _b, mut e] = network(&net, "").await;
    let (_, alice) = register(&mut a, "alice@a.gouv.fr", PASSWORD).await;
    net.judge(
        |from, to, _| if (from, to) == ("a.test", "e.test") { Fate::Unreachable } else { Fate::Deliver },
    );
    let room = make_room(&a, &alice, room_with("unrestricted")).await;
    invite(&a, &alice, &room, PARTNER).await.ok();
    assert_eq!(a.mail().await.to, [PARTNER]);
    ask_for_mail(&e, PARTNER).await.refused(403, "M_THREEPID_DENIED");
    e.no_mail().await;
    net.judge(|_, _, _| Fate::Deliver);
    a.later(std::time::Duration::from_hours(5)).await;
    eventually("e.test knows", async || knows_of_invitation(&e, PARTNER).await).await;
    register(&mut e, PARTNER, PASSWORD).await;
}

#[tokio::test]
async fn row_13_a_mail_leads_nowhere_but_to_hosts_of_the_network() {
    let [mut a, ..] = network(&FakeNet::new(), "").await;
    let (_, alice) = register(&mut a, "alice@a.gouv.fr", PASSWORD).await;
    let token = a.member(&alice).await;
    let service = format!("{V2}/validate/email/requestToken");
    for (number, (path, token)) in [(WANTED, ""), (&*service, &*token)].into_iter().enumerate() {
        let ask = async |address: &str, attempt: u64, link: &str| {
            let body = json!({
                "client_secret": "a-secret", "email": address, "send_attempt": attempt, "next_link": link,
            });
            a.call(token, "POST", path, body).await
        };
        for link in [
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://app.test/",
            "https://evil.test/",
            "https://app.test.evil.test/",
            "https://app.test@evil.test/",
            "https://evil.test/#https://app.test/",
            "//app.test/",
            "https://app.test/\r\nx",
        ] {
            ask("jean@a.gouv.fr", 1, link).await.refused(400, "M_INVALID_PARAM");
        }
        let address = format!("jean{number}@a.gouv.fr");
        ask(&address, 1, "https://app.test/welcome").await.ok();
        ask(&address, 2, "https://a.test/").await.refused(400, "M_INVALID_PARAM");
    }
    for expected in ["jean0@a.gouv.fr", "jean1@a.gouv.fr"] {
        assert_eq!(a.mail().await.to, [expected]);
    }
    a.no_mail().await;
}

#[tokio::test]
async fn row_14_what_a_query_has_to_escape_is_understood() {
    let [mut a, ..] = network(&FakeNet::new(), "").await;
    let address = "o'neil+x&y=z@a.gouv.fr";
    let (id, neil) = register(&mut a, address, PASSWORD).await;
    assert_eq!(id, "@oneilxy=z-a.gouv.fr:a.test");
    assert_eq!(info(&a, address).await.ok(), json!({ "hs": "a.test" }));
    let said = a.inside("GET", &question("internal-info", address), Value::Null).await.ok();
    assert_eq!(said["hs"], "a.test");
    let token = a.member(&neil).await;
    eventually("it is bound", async || find(&a, &token, address).await == json!(id)).await;
    a.accounts.update_user(&neil.id, |user| user.admin = true).await.unwrap();
    let path = "/_synapse/admin/v1/threepid/email/users/o%27neil%2Bx%26y%3Dz@a.gouv.fr";
    assert_eq!(a.call(&neil.token, "GET", path, Value::Null).await.ok()["user_id"], json!(id));
    // A plus that is not escaped is a space.
    let path = "/_matrix/identity/api/v1/info?medium=email&address=o'neil+x@a.gouv.fr";
    a.call("", "GET", path, Value::Null).await.refused(400, "M_INVALID_EMAIL");
}

#[tokio::test]
async fn rows_15_18_names_follow_from_addresses() {
    let any = "\n[identity.service]\nbind_new_accounts = true\n";
    let text = NETWORK.replace("[identity]", "[identity]\naddresses = \"any\"");
    let mut server = Ministry::on(&FakeNet::new(), "a.test", &format!("{text}{any}")).await;
    for (address, localpart, name) in [
        ("john.doe@example.com", "john.doe-example.com", "John Doe [Example]"),
        ("user+tag@domain.com", "usertag-domain.com", "User+tag [Domain]"),
        ("jane.smith@example.gouv.fr", "jane.smith-example.gouv.fr", "Jane Smith [Example]"),
        (
            "Jean-Pierre.LE-GALL@Gendarmerie.Interieur.gouv.fr",
            "jean-pierre.le-gall-gendarmerie.interieur.gouv.fr",
            "Jean-Pierre Le-Gall [Interieur]",
        ),
        ("x@gouv.fr", "x-gouv.fr", "X [Gouv]"),
        ("contact@mail.example.com", "contact-mail.example.com", "Contact [Example]"),
        ("O'Neil_x=y@Domain.com", "oneil_x=y-domain.com", "O'neil_x=y [Domain]"),
        ("jean2@x.fr", "jean2-x.fr", "Jean2 [X]"),
    ] {
        let (id, agent) = register(&mut server, address, PASSWORD).await;
        assert_eq!(id, format!("@{localpart}:a.test"), "{address}");
        let shown = server.call(&agent.token, "GET", &format!("/profile/{id}"), Value::Null).await.ok();
        assert_eq!(shown["displayname"], name, "{address}");
    }
}

#[tokio::test]
async fn row_105_an_address_is_bound_to_users_of_its_own_server_alone() {
    let [mut a, ..] = network(&FakeNet::new(), "").await;
    let (id, alice) = register(&mut a, "alice@a.gouv.fr", PASSWORD).await;
    let token = a.member(&alice).await;
    for (address, status) in [("alice@b.gouv.fr", 400), (PARTNER, 400), ("alice2@a.gouv.fr", 200)] {
        let body = json!({ "client_secret": "a-secret", "email": address, "send_attempt": 1 });
        let asked = a.call(&token, "POST", &format!("{V2}/validate/email/requestToken"), body).await.ok();
        let mail = a.mail().await;
        let (_, code) = mail.text.split_once("token=").unwrap();
        let code = code.split('&').next().unwrap();
        let submit = json!({ "sid": asked["sid"], "client_secret": "a-secret", "token": code });
        a.call("", "POST", &format!("{V2}/validate/email/submitToken"), submit).await.ok();
        let bind = json!({ "sid": asked["sid"], "client_secret": "a-secret", "mxid": id });
        let bound = a.call(&token, "POST", &format!("{V2}/3pid/bind"), bind).await;
        match status {
            200 => assert_eq!(bound.ok()["mxid"], json!(id)),
            _ => bound.refused(400, "M_BINDING_NOT_PERMITTED"),
        }
    }
    let elsewhere = json!({ "address": "jean@a.gouv.fr", "medium": "email", "mxid": "@jean:b.test" });
    let path = "/_matrix/identity/internal/bind";
    a.inside("POST", path, elsewhere).await.refused(400, "M_BINDING_NOT_PERMITTED");
}

#[tokio::test]
async fn row_106_an_invitation_is_kept_for_an_address_and_says_little_of_it() {
    let [mut a, ..] = network(&FakeNet::new(), "").await;
    let (id, alice) = register(&mut a, "alice@a.gouv.fr", PASSWORD).await;
    let token = a.member(&alice).await;
    let store = async |address: &str| {
        let body = json!({
            "medium": "email", "address": address, "room_id": "!r:a.test", "sender": id, "room_name": "Salon",
        });
        a.call(&token, "POST", &format!("{V2}/store-invite"), body).await
    };
    eventually("her own address is bound", async || find(&a, &token, "alice@a.gouv.fr").await == json!(id))
        .await;
    let stored = store(PARTNER).await.ok();
    assert_eq!(stored["token"].as_str().unwrap().len(), 128);
    let keys = stored["public_keys"].as_array().unwrap();
    assert_eq!((keys.len(), &stored["public_key"]), (2, &keys[0]["public_key"]));
    let hint = stored["display_name"].as_str().unwrap();
    assert!(!hint.contains("paul@") && !hint.contains("partner") && hint.contains('@'), "{hint}");
    let bound = store("Alice@a.gouv.fr").await;
    assert_eq!(bound.json["mxid"], json!(id));
    bound.refused(400, "M_THREEPID_IN_USE");
    assert_eq!(a.mail().await.to, [PARTNER]);
    a.no_mail().await;
}

/// What is asked for over and over is refused in the end, and told when to come back.
#[tokio::test]
async fn row_108_bursts_are_refused_with_the_time_to_wait() {
    let two = "{ per_second = 0.001, burst = 2 }";
    let more = format!(
        "[client.rates]\naddress_invite = {two}\nsearch = {two}\nlogin_by_account = {two}\n\
         [identity_api.rates]\ninfo = {two}\n[identity.service]\ninvites_per_sender = 3\n"
    );
    let server = Ministry::alone(&more).await;
    let alice = server.agent("alice").await;
    let id_token = server.member(&alice).await;
    let room = make_room(&server, &alice, json!({})).await;
    let log_in = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" }, "password": "wrong",
    });
    let store = json!({
        "medium": "email", "address": PARTNER, "room_id": room, "sender": alice.id,
    });
    let invited = json!({
        "id_server": "a.gouv.fr", "id_access_token": id_token, "medium": "email", "address": "jean@a.example",
    });
    for (token, method, path, body) in [
        (&*alice.token, "POST", format!("/rooms/{room}/invite"), invited),
        (&*alice.token, "POST", "/user_directory/search".to_owned(), json!({ "search_term": "bob" })),
        ("", "POST", "/login".to_owned(), log_in),
        ("", "GET", question("info", PARTNER), Value::Null),
        (&*id_token, "POST", format!("{V2}/store-invite"), store),
    ] {
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(server.call(token, method, &path, body.clone()).await);
        }
        let is_limited = |answer: &Answer| answer.status == StatusCode::TOO_MANY_REQUESTS;
        assert!(!is_limited(&answers[0]), "{path}");
        let last = answers.pop().unwrap();
        assert!(last.json["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{path}: {}", last.text);
        let seconds: u64 = last.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(seconds > 0, "{path}");
        last.refused(429, "M_LIMIT_EXCEEDED");
    }
}
