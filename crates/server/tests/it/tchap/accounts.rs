//! Rows 16 to 29: names, passwords, and accounts that come back.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use http::StatusCode;
use serde_json::{Value, json};

use super::ministry::{Agent, Ministry, PASSWORD};
use crate::lab::Lab;

/// Names and addresses follow from the network, not from the user.
const LOCKED: &str = r#"
[identity]
profile = "agents"
addresses = "any"
[client]
displayname_changes = false
threepid_changes = false
"#;

const LOGIN: &str = "/_matrix/client/v3/login";

fn log_in(user: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user }, "password": password })
}

/// Has an address proved by mail; what proves it.
pub(super) async fn prove(server: &mut Ministry, path: &str, address: &str) -> Value {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // As a client does: another secret each time, so that no earlier proof is meant.
    let secret = format!("a-secret-of-the-client-{}", ASKED.fetch_add(1, Relaxed));
    let wanted = json!({ "client_secret": secret, "email": address, "send_attempt": 1 });
    let asked = server.call("", "POST", path, wanted).await.ok();
    let mail = server.mail().await;
    let (_, link) = mail.text.split_once(&format!("https://{}", server.name)).unwrap();
    let (path, query) = link.split_whitespace().next().unwrap().split_once('?').unwrap();
    let form = query.split('&').map(|pair| pair.split_once('=').unwrap());
    let form: Value =
        form.map(|(name, value)| (name.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(server.call("", "POST", path, form).await.status, StatusCode::OK);
    json!({ "sid": asked["sid"], "client_secret": secret })
}

/// Registers by mail.
pub(super) async fn register(server: &mut Ministry, address: &str, password: &str) -> (String, Agent) {
    let proof = prove(server, "/register/email/requestToken", address).await;
    let first = server.call("", "POST", "/register", json!({ "password": password })).await;
    let auth = json!({ "type": "m.login.email.identity", "session": first.json["session"], "threepid_creds": proof });
    let body = json!({ "username": "director", "password": password, "auth": auth });
    let said = server.call("", "POST", "/register", body).await.ok();
    let (id, token) = (said["user_id"].as_str().unwrap(), said["access_token"].as_str().unwrap());
    (id.to_owned(), Agent { id: id.try_into().unwrap(), token: token.to_owned() })
}

fn by_mail(more: &str) -> String {
    format!("{LOCKED}\n[client.registration]\nemail = true\n{more}")
}

#[tokio::test]
async fn row_16_row_17_two_addresses_never_share_an_account_and_nobody_chooses_a_name() {
    let mut server = Ministry::alone(&by_mail("")).await;
    let (first, _) = register(&mut server, "a+b@x.gouv.fr", PASSWORD).await;
    let (second, _) = register(&mut server, "ab@x.gouv.fr", PASSWORD).await;
    assert_eq!((&*first, &*second), ("@ab-x.gouv.fr:a.gouv.fr", "@ab-x.gouv.fr1:a.gouv.fr"));
}

#[tokio::test]
async fn row_25_passwords_that_are_easy_to_guess_are_refused() {
    let mut server = Ministry::alone(&by_mail("[accounts.password.policy]\nminimum_strength = 3")).await;
    let (_, alice) = register(&mut server, "jeanne.durandeau@agriculture.gouv.fr", "gQ7#vbn2LmX0s").await;
    let auth = json!({
        "type": "m.login.password", "password": "gQ7#vbn2LmX0s",
        "identifier": { "type": "m.id.user", "user": alice.id },
    });
    let change = |password: &str| json!({ "new_password": password, "logout_devices": false, "auth": auth });
    for weak in ["password1234", "azertyuiop", "Jeanne.Durandeau", "durandeau-agriculture"] {
        let answer = server.call(&alice.token, "POST", "/account/password", change(weak)).await;
        answer.refused(400, "M_WEAK_PASSWORD");
    }
    // Whoever shows neither a token nor a mail costs no estimate.
    let nobody =
        server.call("", "POST", "/account/password", json!({ "new_password": "password1234" })).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{}", nobody.text);
    let weak = json!({ "password": "password1234" });
    server.call("", "POST", "/register", weak).await.refused(400, "M_WEAK_PASSWORD");
    server.call(&alice.token, "POST", "/account/password", change("correct horse battery staple")).await.ok();
}

#[tokio::test]
async fn row_18_display_names_follow_from_addresses() {
    let mut server = Ministry::alone(&by_mail("")).await;
    for (address, name) in [
        ("jane.smith@example.gouv.fr", "Jane Smith [Example]"),
        ("jean-pierre.le-gall@gendarmerie.interieur.gouv.fr", "Jean-Pierre Le-Gall [Interieur]"),
        ("x@gouv.fr", "X [Gouv]"),
        ("contact@mail.example.com", "Contact [Example]"),
    ] {
        let (id, agent) = register(&mut server, address, PASSWORD).await;
        let shown = server.call(&agent.token, "GET", &format!("/profile/{id}"), Value::Null).await.ok();
        assert_eq!(shown["displayname"], name);
    }
}

#[tokio::test]
async fn rows_19_to_22_names_and_addresses_are_locked_and_pictures_are_not() {
    let server = Ministry::alone(LOCKED).await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    let profile = format!("/profile/{}", alice.id);
    let named = json!({ "displayname": "The Minister" });
    server
        .call(&alice.token, "PUT", &format!("{profile}/displayname"), named.clone())
        .await
        .refused(400, "M_FORBIDDEN");
    let name = format!("{profile}/displayname");
    server.call(&alice.token, "DELETE", &name, Value::Null).await.refused(400, "M_FORBIDDEN");
    let room =
        server.call(&alice.token, "POST", "/createRoom", json!({ "preset": "private_chat" })).await.ok();
    let member = format!("/rooms/{}/state/m.room.member/{}", room["room_id"].as_str().unwrap(), alice.id);
    let body = json!({ "membership": "join", "displayname": "The Minister" });
    server.call(&alice.token, "PUT", &member, body).await.refused(400, "M_FORBIDDEN");
    let own = json!({ "membership": "join" });
    server.call(&alice.token, "PUT", &member, own).await.ok();

    let picture = json!({ "avatar_url": "mxc://a.gouv.fr/face" });
    server.call(&alice.token, "PUT", &format!("{profile}/avatar_url"), picture).await.ok();
    let path = format!("/_synapse/admin/v2/users/{}", alice.id);
    server.call(&admin.token, "PUT", &path, named).await.ok();
    let shown = server.call(&alice.token, "GET", &profile, Value::Null).await.ok();
    assert_eq!(shown, json!({ "displayname": "The Minister", "avatar_url": "mxc://a.gouv.fr/face" }));

    let add = json!({ "sid": "s", "client_secret": "c" });
    server.call(&alice.token, "POST", "/account/3pid/add", add).await.refused(403, "M_FORBIDDEN");
    let gone = json!({ "medium": "email", "address": "alice@a.gouv.fr" });
    server.call(&alice.token, "POST", "/account/3pid/delete", gone).await.refused(403, "M_FORBIDDEN");
    let can = server.call(&alice.token, "GET", "/capabilities", Value::Null).await.ok();
    for (name, enabled) in
        [("m.set_displayname", false), ("m.set_avatar_url", true), ("m.3pid_changes", false)]
    {
        assert_eq!(can["capabilities"][name]["enabled"], enabled, "{name}");
    }
}

#[tokio::test]
async fn rows_23_and_24_passwords_are_judged_in_one_order() {
    let policy = r"
[accounts.password.policy]
minimum_length = 8
require_digit = true
require_symbol = true
require_uppercase = true
require_lowercase = true
";
    let server = Ministry::alone(policy).await;
    for path in ["/password_policy", "/_matrix/client/r0/password_policy"] {
        let shown = server.call("", "GET", path, Value::Null).await.ok();
        let expected = json!({ "m.minimum_length": 8, "m.require_digit": true, "m.require_symbol": true,
            "m.require_uppercase": true, "m.require_lowercase": true });
        assert_eq!(shown, expected);
    }
    for (password, errcode) in [
        ("a", "M_PASSWORD_TOO_SHORT"),
        ("abcdefgh", "M_PASSWORD_NO_DIGIT"),
        ("abcdefg1", "M_PASSWORD_NO_SYMBOL"),
        ("abcdef1!", "M_PASSWORD_NO_UPPERCASE"),
        ("ABCDEF1!", "M_PASSWORD_NO_LOWERCASE"),
    ] {
        let body = json!({ "username": "eve", "password": password, "auth": { "type": "m.login.dummy" } });
        server.call("", "POST", "/register", body).await.refused(400, errcode);
    }
    let body =
        json!({ "username": "eve", "password": "Cheval-Agrafe-Pile7", "auth": { "type": "m.login.dummy" } });
    server.call("", "POST", "/register", body).await.ok();
}

/// The bcrypt hash of the password with "sel" behind.
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu564x.J1ktbVuRH6YZWLq0Uo/UROOh.O";

#[tokio::test]
async fn row_26_accounts_of_another_server_keep_their_passwords() {
    let lab = Lab::start("bcrypt_pepper = \"sel\"").await;
    let file = lab.folder.path().join("users.csv");
    let import = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        lab.admin(&["users", "import", file.to_str().unwrap()]).await
    };
    let csv =
        format!("user,display_name,email,password_hash\njean,\"Jean, Martin\",Jean@A.gouv.fr,{BCRYPT}\n");
    assert!(import(&csv).await.unwrap().contains("1 made, "));
    assert!(import(&csv).await.unwrap().contains("0 made, 0 changed, 1 were there"));
    let http = lab.http();
    let (status, _) = http.post(LOGIN, log_in("jean", "another one")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    for _ in 0..2 {
        // The second time by the hash that this server has made.
        let (status, said) = http.post(LOGIN, log_in("jean", PASSWORD)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        let token = said["access_token"].as_str();
        let (_, bound) = http.get("/_matrix/client/v3/account/3pid", token).await;
        assert_eq!(bound["threepids"][0]["address"], "jean@a.gouv.fr");
    }
    assert!(import("user,password_hash\nanna,$2b$12$short\n").await.unwrap().contains("1 refused"));
    assert!(import("user,colour\nanna,blue\n").await.is_err());
    lab.stop().await;
}

#[tokio::test]
async fn row_27_row_28_a_closed_account_is_entered_by_nobody_until_its_address_registers_again() {
    let mut server = Ministry::alone(&by_mail("")).await;
    let (id, alice) = register(&mut server, "alice@x.gouv.fr", PASSWORD).await;
    server.accounts.deactivate(&alice.id, chappe_accounts::Erase::No).await.unwrap();
    server.call("", "POST", "/login", log_in(&id, PASSWORD)).await.refused(403, "M_FORBIDDEN");
    let (again, alice) = register(&mut server, "alice@x.gouv.fr", "another horse battery").await;
    assert_eq!(again, id);
    server.call("", "POST", "/login", log_in(&id, PASSWORD)).await.refused(403, "M_FORBIDDEN");
    server.call("", "POST", "/login", log_in(&id, "another horse battery")).await.ok();
    let shown = server.call(&alice.token, "GET", &format!("/profile/{id}"), Value::Null).await.ok();
    assert_eq!(shown["displayname"], "Alice [X]");

    // The mail says what happens, and so does the page that it leads to.
    server.accounts.deactivate(&alice.id, chappe_accounts::Erase::No).await.unwrap();
    let wanted = json!({ "client_secret": "again", "email": "alice@x.gouv.fr", "send_attempt": 1 });
    server.call("", "POST", "/register/email/requestToken", wanted).await.ok();
    let mail = server.mail().await.text;
    assert!(mail.contains("Open my account again") && !mail.contains("is creating an account"), "{mail}");
    let (_, link) = mail.split_once("https://a.gouv.fr").unwrap();
    let page = server.call("", "GET", link.split_whitespace().next().unwrap(), Value::Null).await.text;
    assert!(page.contains("Rouvrir mon compte") || page.contains("Open my account again"), "{page}");

    // Whoever asked to be forgotten is: the address makes another account.
    server.accounts.deactivate(&alice.id, chappe_accounts::Erase::Yes).await.unwrap();
    let (other, _) = register(&mut server, "alice@x.gouv.fr", PASSWORD).await;
    assert_eq!(other, "@alice-x.gouv.fr1:a.gouv.fr");
}

#[tokio::test]
async fn row_29_a_mail_sets_a_new_password_and_the_old_one_is_refused() {
    let mut server = Ministry::alone(&by_mail("")).await;
    let (id, _) = register(&mut server, "alice@x.gouv.fr", PASSWORD).await;
    let proof = prove(&mut server, "/account/password/email/requestToken", "alice@x.gouv.fr").await;
    let body = json!({ "new_password": "another horse battery" });
    let first = server.call("", "POST", "/account/password", body.clone()).await;
    assert_eq!(first.status, StatusCode::UNAUTHORIZED);
    let mut body = body;
    body["auth"] = json!({ "type": "m.login.email.identity", "session": first.json["session"], "threepid_creds": proof });
    server.call("", "POST", "/account/password", body.clone()).await.ok();
    server.call("", "POST", "/login", log_in(&id, PASSWORD)).await.refused(403, "M_FORBIDDEN");
    server.call("", "POST", "/login", log_in(&id, "another horse battery")).await.ok();

    // The proof is used up: whoever finds it later sets no password with it.
    body["auth"]["session"] = Value::Null;
    body["new_password"] = json!("a thief's horse battery");
    let replayed = server.call("", "POST", "/account/password", body).await;
    assert_eq!(replayed.status, StatusCode::UNAUTHORIZED, "{}", replayed.json);
    server.call("", "POST", "/login", log_in(&id, "another horse battery")).await.ok();
}
