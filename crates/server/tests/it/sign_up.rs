//! An agent signs up with an address of an open domain.

use chappe_server::mail_sink::Received;
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use crate::lab::{Http, Lab};

pub(crate) const REGISTER: &str = "/_matrix/client/v3/register";
pub(crate) const REQUEST: &str = "/_matrix/client/v3/register/email/requestToken";

pub(crate) fn wanted(address: &str, attempt: u64) -> Value {
    json!({ "client_secret": "a-secret-of-the-client", "email": address, "send_attempt": attempt })
}

/// Path and query of the link in a mail.
pub(crate) fn link(mail: &Received) -> String {
    let line = mail.text.lines().find(|line| line.starts_with("http://matrix.example.gouv.fr/")).unwrap();
    line.trim_start_matches("http://matrix.example.gouv.fr").to_owned()
}

/// Opens the link and presses the button.
pub(crate) async fn confirm(http: &Http, link: &str) {
    let (status, page) = http.raw(Request::get(http.uri(link)), String::new()).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("<form method=\"post\""), "{page}");
    let (path, query) = link.split_once('?').unwrap();
    let request =
        Request::post(http.uri(path)).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let (status, page) = http.raw(request, query.to_owned()).await;
    assert_eq!(status, StatusCode::OK, "{page}");
}

pub(crate) fn registration(sid: &Value, session: &Value, username: &str) -> Value {
    json!({
        "username": username, "password": "correct horse battery", "initial_device_display_name": "Test",
        "auth": {
            "type": "m.login.email.identity", "session": session,
            "threepid_creds": { "sid": sid, "client_secret": "a-secret-of-the-client" },
        },
    })
}

#[tokio::test]
async fn from_the_address_to_a_logged_in_device() {
    let mut lab = Lab::start("").await;
    let http = lab.http();
    let (status, said) = http.post(REQUEST, wanted("jean.martin@dinum.gouv.fr", 1)).await;
    assert_eq!((status, &said["errcode"]), (StatusCode::FORBIDDEN, &json!("M_THREEPID_DENIED")), "{said}");
    assert!(said["error"].as_str().unwrap().contains("jean.martin@dinum.gouv.fr"));
    lab.admin(&["domains", "add", "*.gouv.fr"]).await.unwrap();
    for hostile in ["jean@evil.tld@dinum.gouv.fr", "jean@dinum.gouv.fr\n", "\"a@evil\"@dinum.gouv.fr"] {
        let (status, _) = http.post(REQUEST, wanted(hostile, 1)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{hostile:?}");
    }
    assert!(!lab.has_mail());

    let (status, asked) = http.post(REQUEST, wanted("Jean.Martin@DINUM.gouv.fr", 1)).await;
    assert_eq!(status, StatusCode::OK, "{asked}");
    let mail = lab.mail().await;
    assert_eq!(mail.to, ["jean.martin@dinum.gouv.fr"]);

    let (status, flows) = http.post(REGISTER, json!({ "password": "correct horse battery" })).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let body = registration(&asked["sid"], &flows["session"], "director");
    let (status, early) = http.post(REGISTER, body).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "not confirmed yet: {early}");

    confirm(&http, &link(&mail)).await;
    let (_, flows) = http.post(REGISTER, json!({ "password": "correct horse battery" })).await;
    let body = registration(&asked["sid"], &flows["session"], "director");
    let (status, registered) = http.post(REGISTER, body).await;
    assert_eq!(status, StatusCode::OK, "{registered}");
    let me = "@jean.martin-dinum.gouv.fr:agent.example.gouv.fr";
    assert_eq!(registered["user_id"], me, "the name follows from the address");

    let token = registered["access_token"].as_str().unwrap();
    let (_, who) = http.get("/_matrix/client/v3/account/whoami", Some(token)).await;
    assert_eq!(who["user_id"], me);
    let (_, profile) = http.get(&format!("/_matrix/client/v3/profile/{me}"), Some(token)).await;
    assert_eq!(profile["displayname"], "Jean Martin [Dinum]");

    let login = json!({
        "type": "m.login.password", "password": "correct horse battery",
        "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "JEAN.martin@dinum.gouv.fr" },
    });
    let (status, logged_in) = http.post("/_matrix/client/v3/login", login).await;
    assert_eq!((status, &logged_in["user_id"]), (StatusCode::OK, &json!(me)));

    let (status, again) = http.post(REQUEST, wanted("jean.martin@dinum.gouv.fr", 2)).await;
    assert_eq!((status, &again["errcode"]), (StatusCode::BAD_REQUEST, &json!("M_THREEPID_IN_USE")));
    assert!(!lab.has_mail());
    lab.stop().await;
}

/// Signs an address up that may; gives the answer to the registration.
pub(crate) async fn sign_up(lab: &mut Lab, address: &str) -> Value {
    let http = lab.http();
    let (status, asked) = http.post(REQUEST, wanted(address, 1)).await;
    assert_eq!(status, StatusCode::OK, "{asked}");
    confirm(&http, &link(&lab.mail().await)).await;
    let (_, flows) = http.post(REGISTER, json!({ "password": "correct horse battery" })).await;
    let body = registration(&asked["sid"], &flows["session"], "somebody");
    let (status, registered) = http.post(REGISTER, body).await;
    assert_eq!(status, StatusCode::OK, "{registered}");
    registered
}

/// Two addresses with the same plain user name get two accounts.
#[tokio::test]
async fn a_collision_gives_nobody_the_account_of_another() {
    let mut lab = Lab::start("").await;
    let http = lab.http();
    lab.admin(&["domains", "add", "x.fr"]).await.unwrap();
    let mut ids = Vec::new();
    for address in ["a+b@x.fr", "ab@x.fr"] {
        let (_, asked) = http.post(REQUEST, wanted(address, 1)).await;
        confirm(&http, &link(&lab.mail().await)).await;
        let (_, flows) = http.post(REGISTER, json!({ "password": "correct horse battery" })).await;
        let body = registration(&asked["sid"], &flows["session"], "ab-x.fr");
        let (status, registered) = http.post(REGISTER, body).await;
        assert_eq!(status, StatusCode::OK, "{registered}");
        ids.push(registered["user_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids, ["@ab-x.fr:agent.example.gouv.fr", "@ab-x.fr1:agent.example.gouv.fr"]);
    lab.stop().await;
}

/// The value of a hidden field of a page.
fn hidden(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).expect(page);
    rest.split('"').next().unwrap().replace("&amp;", "&")
}

#[tokio::test]
async fn an_agent_signs_up_on_a_page_once_the_address_is_proved() {
    let mut lab = Lab::start("[oauth]\nenabled = true").await;
    lab.admin(&["domains", "add", "*.gouv.fr"]).await.unwrap();
    let http = lab.http();
    let cookie = format!("__Host-chappe-oauth={}", "c".repeat(43));
    let base = "/_matrix/client/unstable/chappe/oauth/sign_up";
    let (_, page) = http
        .raw(Request::get(http.uri(&format!("{base}?to=account"))).header("cookie", &cookie), String::new())
        .await;
    let proof = hidden(&page, "csrf");
    let post = async |more: &[(&str, &str)]| {
        let request = Request::post(http.uri(base))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::COOKIE, &cookie);
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("csrf", &proof).append_pair("to", "account").extend_pairs(more);
        http.raw(request, form.finish()).await
    };
    for refused in ["jean@elsewhere.fr", "jean@evil.tld@dinum.gouv.fr"] {
        assert_eq!(post(&[("email", refused)]).await.0, StatusCode::FORBIDDEN, "{refused}");
    }
    assert!(!lab.has_mail());
    let (status, page) = post(&[("email", "jean.martin@dinum.gouv.fr")]).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let mail = lab.mail().await;
    let (sid, secret) = (hidden(&page, "sid"), hidden(&page, "client_secret"));
    let password = "correct horse battery";
    let rest = [("sid", &*sid), ("client_secret", &*secret), ("password", password), ("again", password)];
    let (early, page) = post(&rest).await;
    assert_eq!(early, StatusCode::FORBIDDEN, "not confirmed yet: {page}");
    confirm(&http, &link(&mail)).await;
    let (status, page) = post(&rest).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    let log_in =
        json!({ "type": "m.login.password", "user": "jean.martin-dinum.gouv.fr", "password": password });
    let (status, said) = http.post("/_matrix/client/v3/login", log_in).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    lab.stop().await;
}

#[tokio::test]
async fn an_address_is_added_by_a_proof_that_is_good_once() {
    let mut lab = Lab::start("").await;
    lab.admin(&["domains", "add", "x.fr"]).await.unwrap();
    let registered = sign_up(&mut lab, "jean@x.fr").await;
    let (http, token) = (lab.http(), registered["access_token"].as_str());
    let account = "/_matrix/client/v3/account/3pid";
    for (path, address, spent) in
        [("/add", "j.b@x.fr", "M_NO_VALID_SESSION"), ("", "j.c@x.fr", "M_THREEPID_AUTH_FAILED")]
    {
        let (_, asked) = http.post(&format!("{account}/email/requestToken"), wanted(address, 1)).await;
        let proof = json!({ "sid": asked["sid"], "client_secret": "a-secret-of-the-client" });
        let body = if path.is_empty() { json!({ "three_pid_creds": proof }) } else { proof };
        let path = format!("{account}{path}");
        let add = async || {
            let (_, flows) = http.call(Method::POST, &path, token, body.clone()).await;
            let mut body = body.clone();
            body["auth"] = json!({
                "type": "m.login.password", "session": flows["session"], "password": "correct horse battery",
                "identifier": { "type": "m.id.user", "user": registered["user_id"] },
            });
            http.call(Method::POST, &path, token, body).await.1
        };
        assert_eq!(http.post(&path, body.clone()).await.1["errcode"], "M_MISSING_TOKEN");
        assert!(add().await["errcode"].is_string(), "not confirmed yet");
        confirm(&http, &link(&lab.mail().await)).await;
        assert_eq!(add().await, json!({}));
        assert_eq!(add().await["errcode"], spent);
    }
    let (_, bound) = http.get(account, token).await;
    assert_eq!(bound["threepids"].as_array().unwrap().len(), 3, "{bound}");
    lab.stop().await;
}
