//! The account page, and what sessions of OAuth clients cannot do elsewhere.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::*;
use crate::host::PATIENCE;

fn at(action: &str) -> String {
    format!("{BASE}/account?action=org.matrix.{action}")
}

#[tokio::test]
async fn sessions_are_listed_and_ended_with_the_password() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let tokens = client.session("alice", "PHONE").await;
    assert!(tokens.works(&home).await);
    alice.put(&format!("/profile/{}/displayname", alice.id), json!({ "displayname": "<b>A</b>" })).await.ok();
    let mut browser = Browser::new(&home);
    let page = browser.open(&at("devices_list"), "alice").await.html();
    assert!(page.contains("PHONE") && page.contains(&alice.device) && page.contains("&lt;b&gt;A"), "{page}");
    let page = browser.get(&format!("{}&device_id=PHONE", at("device_view"))).await.html();
    assert!(page.contains("PHONE") && !page.contains(&alice.device), "{page}");
    let strange = browser.get(&format!("{}&device_id=NOTHING", at("device_delete"))).await.html();
    assert!(strange.contains("Your sessions"), "{strange}");

    let question = browser.get(&format!("{}&device_id=PHONE", at("device_delete"))).await;
    assert!(tokens.works(&home).await, "a link ends nothing");
    let wrong = browser.submit(&question, "/account", &[("password", "wrong")]).await;
    assert!(wrong.status == 403 && wrong.html().contains("password is wrong"), "{}", wrong.html());
    assert!(tokens.works(&home).await);
    let done = browser.submit(&question, "/account", &[("password", PASSWORD)]).await;
    assert!(done.html().contains("The session has ended"), "{}", done.html());
    assert!(!tokens.works(&home).await);
    client.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn a_new_password_ends_other_browsers_and_sessions_if_asked() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let tokens = client.session("alice", "PHONE").await;
    let (mut mine, mut other) = (Browser::new(&home), Browser::new(&home));
    other.open(&at("profile"), "alice").await;
    let page = mine.open(&at("profile"), "alice").await;
    let change = async |browser: &mut Browser<'_>, old: &str, new: &str, again: &str, ends: &str| {
        let filled = [("password", old), ("new_password", new), ("again", again), ("end_sessions", ends)];
        browser.submit(&page, "/account", &filled).await
    };
    assert_eq!(change(&mut mine, "wrong", "a new long one", "a new long one", "").await.status, 403);
    let differ = change(&mut mine, PASSWORD, "a new long one", "another", "").await;
    assert!(differ.html().contains("not the same"));
    let weak = change(&mut mine, PASSWORD, "short", "short", "").await;
    assert!(weak.html().contains("too weak"));
    let done = change(&mut mine, PASSWORD, "a new long one", "a new long one", "").await;
    assert!(done.html().contains("is changed"), "{}", done.html());
    assert!(tokens.works(&home).await, "sessions stay unless asked");
    assert!(mine.get(&at("profile")).await.html().contains("Your sessions"));
    assert!(other.get(&at("profile")).await.html().contains("Log in"), "the other browser is logged out");

    let page = mine.get(&at("profile")).await;
    let filled = [
        ("password", "a new long one"),
        ("new_password", PASSWORD),
        ("again", PASSWORD),
        ("end_sessions", "yes"),
    ];
    assert!(mine.submit(&page, "/account", &filled).await.html().contains("is changed"));
    assert!(!tokens.works(&home).await);
}

#[tokio::test]
async fn an_account_is_closed_with_the_password_and_leaves_its_rooms() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/rooms/{room}/join"), json!({})).await.ok();
    let client = Client::new(&home).await;
    let tokens = client.session("bob", "PHONE").await;
    let mut browser = Browser::new(&home);
    let question = browser.open(&at("account_deactivate"), "bob").await;
    assert_eq!(browser.submit(&question, "/account", &[("password", "wrong")]).await.status, 403);
    assert!(tokens.works(&home).await);
    let done = browser.submit(&question, "/account", &[("password", PASSWORD), ("erase", "yes")]).await;
    assert!(done.html().contains("is closed"), "{}", done.html());
    assert!(browser.cookie.is_none() && !tokens.works(&home).await);
    client.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");
    let asked = browser.get(&at("profile")).await;
    let refused = browser.submit(&asked, "/login", &[("name", "bob"), ("password", PASSWORD)]).await;
    assert!(refused.status == 403 && refused.html().contains("is wrong"));
    let members = format!("/rooms/{room}/joined_members");
    let leaving = async {
        while alice.get(&members).await.ok()["joined"].as_object().unwrap().len() != 1 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, leaving).await.expect("bob leaves");
}

/// A self-signed cross-signing key, as far as a first upload is looked at.
fn master(user: &str, key: &str) -> Value {
    json!({ "user_id": user, "usage": ["master"], "keys": { format!("ed25519:{key}"): key } })
}

#[tokio::test]
async fn a_new_identity_is_approved_for_one_request_of_one_device() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let (phone, thief) = (client.session("alice", "PHONE").await, client.session("alice", "THIEF").await);
    let path = "/keys/device_signing/upload";
    let upload = async |tokens: &Tokens, key: &str, auth: Option<Value>| {
        let mut body = json!({ "master_key": master(&alice.id, key) });
        if let Some(auth) = auth {
            body["auth"] = auth;
        }
        home.call(&tokens.access, "POST", path, body).await
    };
    let (first, second, third) = (
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA",
        "CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCA",
    );
    upload(&phone, first, None).await.ok();
    let asked = upload(&phone, second, None).await;
    assert_eq!(asked.status, 401);
    let stages = json!([{ "stages": ["m.oauth"] }, { "stages": ["org.matrix.cross_signing_reset"] }]);
    assert_eq!(asked.json["flows"], stages);
    let url = asked.json["params"]["m.oauth"]["url"].as_str().unwrap();
    assert_eq!(url, format!("http://a.test{}", at("cross_signing_reset")));
    assert_eq!(asked.json["params"]["org.matrix.cross_signing_reset"]["url"], url);
    let session = json!({ "session": asked.json["session"] });
    let typed = json!({ "type": "m.oauth", "session": asked.json["session"] });
    for auth in [&session, &typed] {
        assert_eq!(upload(&phone, second, Some(auth.clone())).await.status, 401, "nobody has approved");
    }
    let password = json!({ "type": "m.login.password", "password": PASSWORD, "session": asked.json["session"],
        "identifier": { "type": "m.id.user", "user": alice.id } });
    assert_eq!(upload(&phone, second, Some(password)).await.status, 403, "passwords are not for clients");
    let theirs = upload(&thief, third, None).await;

    let mut browser = Browser::new(&home);
    let question = browser.open(&at("cross_signing_reset"), "alice").await;
    assert!(question.html().contains("PHONE") && question.html().contains("THIEF"));
    assert_eq!(browser.submit(&question, "/account", &[("password", "wrong")]).await.status, 403);
    assert_eq!(upload(&phone, second, Some(session.clone())).await.status, 401);
    // The first form of the page is that of the first device.
    let done = browser.submit(&question, "/account", &[("password", PASSWORD)]).await;
    assert!(done.html().contains("Approved"), "{}", done.html());
    assert_eq!(upload(&phone, third, Some(session.clone())).await.status, 403, "other keys than were shown");
    assert_eq!(upload(&thief, second, Some(session.clone())).await.status, 403, "another device");
    upload(&phone, second, Some(session.clone())).await.ok();
    assert_eq!(upload(&phone, third, Some(session)).await.status, 401, "once");
    let session = json!({ "session": theirs.json["session"] });
    assert_eq!(upload(&thief, third, Some(session)).await.status, 401, "approved for the other device alone");
}

/// Sends keys made of this letter as the identity of `user`, without a word of a session.
async fn upload(home: &Home, tokens: &Tokens, user: &str, letter: char) -> Answer {
    let key = format!("{}A", String::from(letter).repeat(42));
    let body = json!({ "master_key": master(user, &key) });
    home.call(&tokens.access, "POST", "/keys/device_signing/upload", body).await
}

#[tokio::test]
async fn an_approval_is_not_for_keys_that_somebody_else_slipped_in() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = Client::new(&home).await.session("alice", "PHONE").await;
    let upload = async |letter| upload(&home, &phone, &alice.id, letter).await;
    upload('A').await.ok();
    let asked = upload('B').await;
    assert_eq!(upload('B').await.json["session"], asked.json["session"], "asking again opens nothing");
    let mut browser = Browser::new(&home);
    let question = browser.open(&at("cross_signing_reset"), "alice").await;
    // Whoever stole the token of the phone asks for keys of their own.
    assert_eq!(upload('C').await.status, 401);
    let done = browser.submit(&question, "/account", &[("password", PASSWORD)]).await;
    assert!(!done.html().contains("Approved"), "{}", done.html());
    for letter in ['B', 'C'] {
        assert_eq!(upload(letter).await.status, 401, "{letter}");
    }
}

#[tokio::test]
async fn a_client_that_only_asks_again_is_served_once_it_is_approved() {
    let home = home().await;
    let alice = home.user("alice").await;
    let phone = Client::new(&home).await.session("alice", "PHONE").await;
    let upload = async |letter| upload(&home, &phone, &alice.id, letter).await;
    upload('A').await.ok();
    assert_eq!(upload('B').await.status, 401);
    let mut browser = Browser::new(&home);
    let question = browser.open(&at("cross_signing_reset"), "alice").await;
    browser.submit(&question, "/account", &[("password", PASSWORD)]).await;
    upload('B').await.ok();
    assert_eq!(upload('D').await.status, 401, "for these keys alone");
}

#[tokio::test]
async fn sessions_of_clients_prove_nothing_with_passwords() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let tokens = client.session("alice", "PHONE").await;
    let device = format!("/devices/{}", alice.device);
    for (method, path, body) in [
        ("DELETE", device.as_str(), json!({})),
        ("POST", "/delete_devices", json!({ "devices": [alice.device] })),
        ("POST", "/account/password", json!({ "new_password": "another long one" })),
        ("POST", "/account/deactivate", json!({})),
        ("POST", "/_matrix/client/v1/login/get_token", json!({})),
    ] {
        home.call(&tokens.access, method, path, body).await.refused(403, "M_FORBIDDEN");
    }
    let may = home.call(&tokens.access, "GET", "/capabilities", Value::Null).await.ok();
    assert_eq!(may["capabilities"]["m.change_password"]["enabled"], false);
    assert_eq!(alice.get("/capabilities").await.ok()["capabilities"]["m.change_password"]["enabled"], true);
    // Logging out is nobody else's business.
    home.call(&tokens.access, "POST", "/logout", json!({})).await.ok();
    client.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");
}

#[tokio::test]
async fn row_99_an_administrator_ends_all_sessions_of_a_user() {
    let home = home().await;
    let (admin, alice) = (home.administrator("admin").await, home.user("alice").await);
    let body =
        json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD, "refresh_token": true });
    let log_in = home.call("", "POST", "/login", body).await.ok();
    let client = Client::new(&home).await;
    let tokens = client.session("alice", "PHONE").await;
    let mut browser = Browser::new(&home);
    let path = format!("{BASE}/account");
    assert!(browser.open(&path, "alice").await.html().contains("Your sessions"));

    let end = format!("/_chappe/admin/v1/users/{}/log_out", alice.id);
    alice.post(&end, json!({})).await.refused(403, "M_FORBIDDEN");
    let nobody = "/_chappe/admin/v1/users/@nobody:a.test/log_out";
    admin.post(nobody, json!({})).await.refused(404, "M_NOT_FOUND");
    let ended = admin.post(&end, json!({})).await.ok();
    assert_eq!(ended["devices"].as_array().unwrap().len(), 3, "{ended}");
    for token in [&*alice.token, log_in["access_token"].as_str().unwrap(), &*tokens.access] {
        home.call(token, "GET", "/account/whoami", Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
    }
    let refresh = json!({ "refresh_token": log_in["refresh_token"] });
    home.call("", "POST", "/refresh", refresh).await.refused(401, "M_UNKNOWN_TOKEN");
    client.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");
    assert!(!browser.get(&path).await.html().contains("Your sessions"));
    // The account itself is as it was.
    let body = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    home.call("", "POST", "/login", body).await.ok();
    admin.get("/account/whoami").await.ok();
}
