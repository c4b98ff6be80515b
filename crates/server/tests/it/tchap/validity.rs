//! Rows 76 to 82: accounts end, their users are told in time, and come back at once.

use std::time::Duration;

use axum::{Json, Router, routing::post};
use chappe_store::validity::Enrolments;
use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::{
    eventually,
    ministry::{Agent, Answer, DAY, Ministry, PASSWORD},
};
use crate::host::PATIENCE;

const VALIDITY: &str = r"
[accounts.validity]
days = 100
mail_days_before = [60, 30, 15]
close_after_days = 120
";
const EXPIRED: &str = "ORG_MATRIX_EXPIRED_ACCOUNT";
const SEND: &str = "/_synapse/client/email_account_validity/send_mail";
const RENEW: &str = "/_synapse/client/email_account_validity/renew";
const ADMIN: &str = "/_synapse/client/email_account_validity/admin";
const OLD: &str = "/_matrix/client/unstable/account_validity";
const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

fn days(days: u32) -> Duration {
    DAY * days
}

/// What renews the account, as a mail has it.
fn secret(mail: &str) -> String {
    let (_, after) =
        mail.split_once("renew?token=").unwrap_or_else(|| mail.split_once("application : ").unwrap());
    after.split_whitespace().next().unwrap().to_owned()
}

async fn renew(server: &Ministry, token: &str, secret: &str) -> Answer {
    server.call(token, "GET", &format!("{RENEW}?token={secret}"), Value::Null).await
}

async fn profile(server: &Ministry, agent: &Agent) -> Answer {
    server.call(&agent.token, "GET", "/account/whoami", Value::Null).await
}

async fn expire(server: &Ministry, admin: &Agent, agent: &Agent) {
    let body =
        json!({ "user_id": agent.id, "expiration_ts": server.world.now(), "enable_renewal_emails": false });
    server.call(&admin.token, "POST", ADMIN, body).await.ok();
}

/// Waits until the accounts of these end after a time, which a worker brings about.
async fn end_after(server: &Ministry, agents: [&Agent; 2], at: u64) {
    let all = async || {
        for agent in &agents {
            let account = server.accounts.user(&agent.id).await.unwrap().unwrap();
            if account.ends.is_none_or(|ends| ends <= at) {
                return false;
            }
        }
        true
    };
    eventually("they end later", all).await;
}

#[tokio::test]
async fn row_76_an_account_that_ended_is_refused_everywhere_but_at_renewal() {
    let mut server = Ministry::alone(VALIDITY).await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    let openid = format!("/user/{}/openid/request_token", alice.id);
    let openid = server.call(&alice.token, "POST", &openid, json!({})).await.ok();
    let registered =
        server.call("", "POST", "/_matrix/identity/v2/account/register", openid.clone()).await.ok();
    let identity = registered["token"].as_str().unwrap().to_owned();
    let body = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
        "password": PASSWORD, "refresh_token": true });
    let log_in = server.call("", "POST", "/login", body).await.ok();
    expire(&server, &admin, &alice).await;
    let room = "!r:a.gouv.fr";
    for (method, path) in [
        ("GET", "/account/whoami".to_owned()),
        ("GET", "/sync".to_owned()),
        ("GET", "/events".to_owned()),
        ("POST", SLIDING.to_owned()),
        ("GET", format!("/profile/{}", alice.id)),
        ("GET", format!("/rooms/{room}/messages")),
        ("GET", "/_matrix/client/v1/media/config".to_owned()),
        ("POST", "/_matrix/media/v3/upload".to_owned()),
        ("GET", "/_synapse/admin/v1/server_version".to_owned()),
        ("POST", "/user_directory/search".to_owned()),
        ("POST", ADMIN.to_owned()),
    ] {
        server.call(&alice.token, method, &path, json!({})).await.refused(403, EXPIRED);
    }
    let refresh = json!({ "refresh_token": log_in["refresh_token"] });
    server.call("", "POST", "/refresh", refresh.clone()).await.refused(403, EXPIRED);
    server.call(&identity, "GET", "/_matrix/identity/v2/account", Value::Null).await.refused(403, EXPIRED);
    let userinfo = format!(
        "/_matrix/federation/v1/openid/userinfo?access_token={}",
        openid["access_token"].as_str().unwrap()
    );
    assert_eq!(server.call("", "GET", &userinfo, Value::Null).await.status, StatusCode::UNAUTHORIZED);

    // A token that ends meanwhile cannot be refreshed, and still asks for the mail.
    server.later(Duration::from_hours(2)).await;
    let ended = log_in["access_token"].as_str().unwrap();
    server.call(ended, "GET", "/account/whoami", Value::Null).await.refused(403, EXPIRED);
    server.call("", "POST", SEND, json!({})).await.refused(401, "M_MISSING_TOKEN");
    server.call("nobody's", "POST", SEND, json!({})).await.refused(401, "M_UNKNOWN_TOKEN");
    server.call(ended, "POST", SEND, json!({})).await.ok();
    let mail = server.mail().await;
    assert_eq!(mail.to, ["alice@a.gouv.fr"]);

    // Everything is there again at once: tokens, devices, the identity service.
    assert_eq!(renew(&server, "", &secret(&mail.text)).await.status, StatusCode::OK);
    profile(&server, &alice).await.ok();
    server.call("", "POST", "/refresh", refresh).await.ok();
    server.call(&identity, "GET", "/_matrix/identity/v2/account", Value::Null).await.ok();
    let devices = server.call(&alice.token, "GET", "/devices", Value::Null).await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn row_76_a_sync_that_waits_is_refused_once_the_account_ends() {
    let server = Ministry::alone(VALIDITY).await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    let first = server.call(&alice.token, "GET", "/sync", Value::Null).await.ok();
    let path = format!("/sync?timeout=20000&since={}", first["next_batch"].as_str().unwrap());
    let waiting = server.call(&alice.token, "GET", &path, Value::Null);
    let meanwhile = async {
        expire(&server, &admin, &alice).await;
        // Something to wake it.
        let body = json!({ "preset": "private_chat", "invite": [alice.id] });
        server.call(&admin.token, "POST", "/createRoom", body).await.ok();
    };
    let (waited, ()) = tokio::join!(waiting, meanwhile);
    waited.refused(403, EXPIRED);
    // Logging out only gives up what there is.
    server.call(&alice.token, "POST", "/logout", json!({})).await.ok();
}

#[tokio::test]
async fn row_77_one_mail_at_each_threshold_over_stops_and_jumps_of_the_clock() {
    let mut server = Ministry::alone(VALIDITY).await;
    let alice = server.agent("alice").await;
    server.later(days(39)).await;
    server.no_mail().await;
    server.later(days(2)).await;
    let mail = server.mail().await;
    assert!(mail.text.contains("expire dans 59 jour(s)"), "{}", mail.text);
    server.again(Duration::ZERO, |text| text).await;
    server.no_mail().await;
    server.later(days(30)).await;
    assert!(server.mail().await.text.contains("expire dans 29 jour(s)"));
    server.again(days(1), |text| text).await;
    server.no_mail().await;
    profile(&server, &alice).await.ok();

    // A jump over the last threshold and the end: one mail, and nothing is closed.
    server.again(days(400), |text| text).await;
    let mail = server.mail().await;
    assert!(mail.text.contains("Votre compte a expiré le"), "{}", mail.text);
    server.no_mail().await;
    profile(&server, &alice).await.refused(403, EXPIRED);
    assert_eq!(renew(&server, "", &secret(&mail.text)).await.status, StatusCode::OK);
    profile(&server, &alice).await.ok();
}

#[tokio::test]
async fn row_77_ends_are_spread_when_validity_is_switched_on() {
    let off = VALIDITY.replace("days = 100", "days = 0");
    let mut server = Ministry::alone(&off).await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    server.call(&alice.token, "POST", SEND, json!({})).await.refused(404, "M_UNRECOGNIZED");
    let now = server.world.now();
    server.again(Duration::ZERO, |text| text.replace("days = 0", "days = 100")).await;
    server.later(Duration::from_mins(11)).await;
    end_after(&server, [&admin, &alice], now).await;
    server.no_mail().await;
    let mut ends = Vec::new();
    for agent in [&admin, &alice] {
        let path = format!("/_synapse/admin/v2/users/{}", agent.id);
        let shown = server.call(&admin.token, "GET", &path, Value::Null).await.ok();
        ends.push((shown["expiration_ts"].as_u64().unwrap() - now) / 86_400_000);
    }
    assert!(ends.iter().all(|days| (90..=100).contains(days)), "{ends:?}");

    // Off for long, then on again: whoever would have ended meanwhile gets time.
    server.again(days(300), |text| text.replace("days = 100", "days = 0")).await;
    profile(&server, &alice).await.ok();
    server.later(Duration::from_mins(11)).await;
    let is_noted =
        async || server.accounts.read().get::<Enrolments>(&"accounts".to_owned()).await.unwrap().is_none();
    eventually("it is noted that accounts do not end", is_noted).await;
    server.no_mail().await;
    server.again(Duration::ZERO, |text| text.replace("days = 0", "days = 100")).await;
    server.later(Duration::from_mins(11)).await;
    end_after(&server, [&admin, &alice], server.world.now()).await;
    server.no_mail().await;
    profile(&server, &alice).await.ok();
}

#[tokio::test]
async fn row_78_a_link_renews_once_and_says_so_the_second_time() {
    let mut server = Ministry::alone(VALIDITY).await;
    let alice = server.agent("alice").await;
    server.call(&alice.token, "POST", &format!("{OLD}/send_mail"), json!({})).await.ok();
    let mail = server.mail().await.text;
    assert!(mail.contains(&format!("{OLD}/renew?token=")), "what proxies let through: {mail}");
    let link = secret(&mail);
    assert!(link.len() >= 32);
    let looked = server.call("", "HEAD", &format!("{RENEW}?token={link}"), Value::Null).await;
    assert_eq!(looked.status, StatusCode::BAD_REQUEST, "who only looks renews nothing");
    let page = server.call("", "GET", &format!("{OLD}/renew?token={link}"), Value::Null).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("Votre compte est renouvelé"), "{}", page.text);
    let page = renew(&server, "", &link).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("a déjà servi"), "{}", page.text);
    for bad in ["", "x", &"a".repeat(43)] {
        assert_eq!(renew(&server, "", bad).await.status, StatusCode::BAD_REQUEST, "{bad:?}");
    }
    assert_eq!(server.call("", "GET", RENEW, Value::Null).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn row_79_a_code_renews_together_with_an_access_token() {
    let mut server = Ministry::alone(&format!("{VALIDITY}links = false\n")).await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    expire(&server, &admin, &alice).await;
    server.call(&alice.token, "POST", SEND, json!({})).await.ok();
    let mail = server.mail().await;
    let code = secret(&mail.text);
    assert!(code.len() == 8 && code.bytes().all(|digit| digit.is_ascii_digit()), "{}", mail.text);
    renew(&server, "", &code).await.refused(401, "M_MISSING_TOKEN");
    assert_eq!(renew(&server, &admin.token, &code).await.status, StatusCode::BAD_REQUEST, "somebody else's");
    profile(&server, &alice).await.refused(403, EXPIRED);
    assert_eq!(renew(&server, &alice.token, &code).await.status, StatusCode::OK);
    profile(&server, &alice).await.ok();
    let page = renew(&server, &alice.token, &code).await;
    assert!(page.status == StatusCode::OK && page.text.contains("a déjà servi"), "{}", page.text);

    // Guessing ends a code.
    expire(&server, &admin, &alice).await;
    server.call(&alice.token, "POST", SEND, json!({})).await.ok();
    let code = secret(&server.mail().await.text);
    let wrong = if code == "00000000" { "00000001" } else { "00000000" };
    for _ in 0..10 {
        assert_eq!(renew(&server, &alice.token, wrong).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(renew(&server, &alice.token, &code).await.status, StatusCode::BAD_REQUEST, "dead");
    profile(&server, &alice).await.refused(403, EXPIRED);
}

#[tokio::test]
async fn row_80_administrators_say_when_an_account_ends() {
    let server = Ministry::alone(VALIDITY).await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    for path in [ADMIN, "/_synapse/admin/v1/account_validity/validity"] {
        server.call("", "POST", path, json!({})).await.refused(401, "M_MISSING_TOKEN");
        server
            .call(&alice.token, "POST", path, json!({ "user_id": alice.id }))
            .await
            .refused(403, "M_FORBIDDEN");
        server.call(&admin.token, "POST", path, json!({})).await.refused(400, "M_MISSING_PARAM");
        let nobody = json!({ "user_id": "@nobody:a.gouv.fr" });
        server.call(&admin.token, "POST", path, nobody).await.refused(404, "M_NOT_FOUND");
        let at = server.world.now() + 1_000;
        let said =
            server.call(&admin.token, "POST", path, json!({ "user_id": alice.id, "expiration_ts": at }));
        assert_eq!(said.await.ok(), json!({ "expiration_ts": at }));
        let said = server.call(&admin.token, "POST", path, json!({ "user_id": alice.id })).await.ok();
        assert!(said["expiration_ts"].as_u64().unwrap() >= server.world.now() + 99 * 86_400_000);
    }
}

#[tokio::test]
async fn row_81_who_is_exempt_has_no_end() {
    let exempt = format!("{VALIDITY}exempt = [\"*@a.gouv.fr\", \"@bot-*:*\"]\n");
    let mut server = Ministry::alone(&exempt).await;
    let (alice, bot) = (server.agent("alice").await, server.agent("bot-news").await);
    let admin = server.administrator("root").await;
    server.later(days(90)).await;
    end_after(&server, [&admin, &alice], server.world.now() + 99 * 86_400_000).await;
    server.no_mail().await;
    server.again(days(90), |text| text.replace("\"*@a.gouv.fr\", ", "")).await;
    let mut told = vec![server.mail().await.to.concat(), server.mail().await.to.concat()];
    told.sort();
    assert_eq!(
        told,
        ["alice@a.gouv.fr", "root@a.gouv.fr"],
        "the others were renewed quietly, and are no longer"
    );
    profile(&server, &alice).await.ok();
    server.again(days(100), |text| text).await;
    profile(&server, &bot).await.ok();
    profile(&server, &alice).await.refused(403, EXPIRED);
    profile(&server, &admin).await.refused(403, EXPIRED);
    // Exempt at last: back at once.
    server.again(Duration::ZERO, |text| text.replace("\"@bot-*:*\"", "\"@bot-*:*\", \"@alice:*\"")).await;
    profile(&server, &alice).await.ok();
}

#[tokio::test]
async fn row_82_an_account_that_nobody_renews_is_closed_and_not_erased() {
    let mut server = Ministry::alone(VALIDITY).await;
    let alice = server.agent("alice").await;
    let name = format!("/profile/{}/displayname", alice.id);
    server.call(&alice.token, "PUT", &name, json!({ "displayname": "alice" })).await.ok();
    server.again(days(101), |text| text).await;
    let link = secret(&server.mail().await.text);
    profile(&server, &alice).await.refused(403, EXPIRED);
    server.again(days(119), |text| text).await;
    server.later(Duration::from_mins(11)).await;
    server.no_mail().await;
    assert!(server.accounts.user(&alice.id).await.unwrap().unwrap().deactivated.is_none());
    server.again(days(2), |text| text).await;
    let closed = async || server.accounts.user(&alice.id).await.unwrap().unwrap().deactivated;
    eventually("closed", async || closed().await.is_some()).await;
    assert!(!closed().await.expect("closed").erase);
    assert_eq!(renew(&server, "", &link).await.status, StatusCode::BAD_REQUEST);
    let reader = server.accounts.read();
    assert_eq!(server.accounts.profile(&reader, &alice.id).await.unwrap().displayname(), Some("alice"));
}

#[tokio::test]
async fn row_69_row_76_nobody_finds_who_has_ended_and_nothing_is_pushed() {
    let (net, (heard, mut pushed)) = (FakeNet::new(), mpsc::channel::<String>(16));
    let server = Ministry::on(&net, "a.gouv.fr", VALIDITY).await;
    let gateway = post(async move |Json(body): Json<Value>| {
        let told = &body["notification"];
        let key = told["devices"][0]["pushkey"].as_str().unwrap();
        heard.send(format!("{key}: {}", told["event_id"].as_str().unwrap_or_default())).await.unwrap();
        Json(json!({ "rejected": [] }))
    });
    net.route("push.gouv.fr", &server.world, Router::new().route("/_matrix/push/v1/notify", gateway));
    let (admin, bob) = (server.administrator("root").await, server.agent("bob").await);
    let carol = server.agent("carol").await;
    let room = json!({ "preset": "private_chat", "invite": [bob.id, carol.id] });
    let room = server.call(&admin.token, "POST", "/createRoom", room).await.ok();
    let room = room["room_id"].as_str().unwrap().to_owned();
    for (agent, key) in [(&bob, "bob"), (&carol, "carol")] {
        server.call(&agent.token, "POST", &format!("/rooms/{room}/join"), json!({})).await.ok();
        let pusher = json!({
            "kind": "http", "app_id": "fr.gouv.tchap", "pushkey": key, "app_display_name": "T",
            "device_display_name": "D", "lang": "fr",
            "data": { "url": "https://push.gouv.fr/_matrix/push/v1/notify", "format": "event_id_only" },
        });
        server.call(&agent.token, "POST", "/pushers/set", pusher).await.ok();
    }
    let mut told = async || timeout(PATIENCE, pushed.recv()).await.expect("a push in time").unwrap();
    let say = async |number: u32| {
        let path = format!("/rooms/{room}/send/m.room.message/{number}");
        let body = json!({ "msgtype": "m.text", "body": "bonjour" });
        server.call(&admin.token, "PUT", &path, body).await.ok()["event_id"].as_str().unwrap().to_owned()
    };
    let finds = async || {
        let found =
            server.call(&admin.token, "POST", "/user_directory/search", json!({ "search_term": "bob" }));
        found.await.ok()["results"].as_array().unwrap().len()
    };
    let first = say(1).await;
    let mut both = [told().await, told().await];
    both.sort();
    assert_eq!(both, [format!("bob: {first}"), format!("carol: {first}")]);
    assert_eq!(finds().await, 1);
    expire(&server, &admin, &bob).await;
    let second = say(2).await;
    assert_eq!(finds().await, 0);
    // An event is judged for everybody in the room before any of them is told.
    assert_eq!(told().await, format!("carol: {second}"));
    server.call(&admin.token, "POST", ADMIN, json!({ "user_id": bob.id })).await.ok();
    let third = say(3).await;
    let mut both = [told().await, told().await];
    both.sort();
    assert_eq!(both, [format!("bob: {third}"), format!("carol: {third}")]);
    assert_eq!(finds().await, 1);
}
