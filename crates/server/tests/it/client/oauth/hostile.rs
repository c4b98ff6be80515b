//! Clients, codes and tokens in the wrong hands.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn nothing_is_sent_where_no_client_said_it_listens() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    for redirect_uri in [
        "https://evil.org/",
        "https://example.com/back/",
        "https://example.com/back?x",
        "https://example.com@evil.org/back",
        "http://127.0.0.1:80@evil.org/back",
        "http://localhost/back",
        "com.example.app:/callback/../x",
        "com.example.app://callback",
        "javascript:alert(1)",
    ] {
        let page = browser.get(&client.address(&[("redirect_uri", redirect_uri)])).await;
        assert_eq!(page.status, 400, "{redirect_uri}");
        assert!(!page.headers.contains_key("location"));
        assert!(!page.html().contains("evil.org") && !page.html().contains("href=\"java"), "{}", page.html());
    }
    for change in [("redirect_uri", ""), ("client_id", ""), ("client_id", "x"), ("client_id", CHALLENGE)] {
        let page = browser.get(&client.address(&[change])).await;
        assert_eq!(page.status, 400, "{change:?}");
        assert!(!page.html().contains("href=\"com.example"), "{}", page.html());
    }
    let twice = format!("{}&redirect_uri=https%3A%2F%2Fevil.org", client.address(&[]));
    assert_eq!(browser.get(&twice).await.status, 400);
}

#[tokio::test]
async fn a_wrong_request_is_shown_and_redirects_nobody_by_itself() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    for (change, code) in [
        (("response_type", ""), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", "code id_token"), "unsupported_response_type"),
        (("response_mode", "form_post"), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("scope", ""), "invalid_scope"),
        (("scope", "openid"), "invalid_scope"),
        (("scope", "urn:matrix:client:api:*"), "invalid_scope"),
        (("prompt", "none"), "interaction_required"),
        (("request_uri", "https://example.com/r"), "invalid_request"),
    ] {
        let page = browser.get(&client.address(&[change])).await;
        assert_eq!(page.status, 400, "{change:?}");
        assert!(!page.headers.contains_key("location"));
        let html = page.html().replace("&amp;", "&");
        let way = format!("href=\"{BACK}?error={code}&state=s%26%3D%C3%A9&iss=http%3A%2F%2Fa.test%2F\"");
        assert!(html.contains(&way), "{change:?} {html}");
    }
}

#[tokio::test]
async fn a_code_used_twice_ends_the_session() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let back = client.let_in(&mut browser, "alice", &[]).await;
    let code = parameter(&back, "code");
    let tokens = Tokens::of(client.token_for(&code, &[]).await);
    let fresh = Tokens::of(client.refresh(&tokens.refresh).await);
    assert!(fresh.works(&home).await);
    client.token_for(&code, &[]).await.oauth_error(400, "invalid_grant");
    assert!(!fresh.works(&home).await, "the tokens that came of it have ended");
    client.refresh(&fresh.refresh).await.oauth_error(400, "invalid_grant");
    alice.get("/devices/PHONE").await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn of_parallel_redemptions_one_wins_and_none_lasts() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let code = parameter(&client.let_in(&mut browser, "alice", &[]).await, "code");
    let redeem = || client.token_for(&code, &[]);
    let (one, two, three) = tokio::join!(redeem(), redeem(), redeem());
    let answers = [one, two, three];
    let given: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(given.len(), 1);
    let access = given[0].json["access_token"].as_str().unwrap();
    home.call(access, "GET", "/account/whoami", Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_code_is_bound_to_client_redirect_and_verifier() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let other = Client::with(&home, json!({ "client_name": "Other" })).await;
    let mut browser = Browser::new(&home);
    let code = parameter(&client.let_in(&mut browser, "alice", &[]).await, "code");
    let verifier = VERIFIER.replace('d', "e");
    for (change, error) in [
        (("client_id", other.id.as_str()), "invalid_grant"),
        (("redirect_uri", "https://example.com/back"), "invalid_grant"),
        (("code_verifier", verifier.as_str()), "invalid_grant"),
        (("code_verifier", CHALLENGE), "invalid_grant"),
        (("code_verifier", ""), "invalid_request"),
        (("redirect_uri", ""), "invalid_request"),
        (("code", "chc_x"), "invalid_grant"),
        (("grant_type", "password"), "unsupported_grant_type"),
        (("grant_type", ""), "invalid_request"),
    ] {
        client.token_for(&code, &[change]).await.oauth_error(400, error);
    }
    client.token_for(&code, &[("client_id", "x")]).await.oauth_error(401, "invalid_client");
    client.token_for(&code, &[("client_secret", "x")]).await.oauth_error(401, "invalid_client");
    Tokens::of(client.token_for(&code, &[]).await);
}

#[tokio::test]
async fn an_old_refresh_token_ends_the_session() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let stolen = client.session("alice", "PHONE").await;
    let other = client.session("alice", "TABLET").await;
    let fresh = Tokens::of(client.refresh(&stolen.refresh).await);
    assert!(fresh.works(&home).await);
    client.refresh(&stolen.refresh).await.oauth_error(400, "invalid_grant");
    assert!(!fresh.works(&home).await);
    client.refresh(&fresh.refresh).await.oauth_error(400, "invalid_grant");
    alice.get("/devices/PHONE").await.refused(404, "M_NOT_FOUND");
    assert!(other.works(&home).await, "other sessions go on");
    // What was made up is of no family, and ends nothing.
    for made_up in ["chr_x", "chr_AAAAAAAAAAAAAAAAAAAAAA_x", ""] {
        client.refresh(made_up).await.json["error"].as_str().unwrap();
    }
    assert!(other.works(&home).await);
}

#[tokio::test]
async fn refresh_tokens_are_of_one_client_and_one_api() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let other = Client::with(&home, json!({ "client_name": "Other" })).await;
    let tokens = client.session("alice", "PHONE").await;
    other.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");
    home.call("", "POST", "/refresh", json!({ "refresh_token": tokens.refresh }))
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    let log_in = json!({ "type": "m.login.password", "password": PASSWORD, "refresh_token": true,
        "identifier": { "type": "m.id.user", "user": "alice" } });
    let legacy = home.call("", "POST", "/login", log_in).await.ok();
    client.refresh(legacy["refresh_token"].as_str().unwrap()).await.oauth_error(400, "invalid_grant");
    home.call("", "POST", "/refresh", json!({ "refresh_token": legacy["refresh_token"] })).await.ok();
    let more = [
        ("grant_type", "refresh_token"),
        ("client_id", client.id.as_str()),
        ("refresh_token", tokens.refresh.as_str()),
        ("scope", "urn:matrix:client:api:* urn:matrix:client:device:TABLET"),
    ];
    client.post("/token", &more).await.oauth_error(400, "invalid_scope");
    // A device that logs in again without the client is the client's no more.
    let again = json!({ "type": "m.login.password", "password": PASSWORD, "device_id": "PHONE",
        "identifier": { "type": "m.id.user", "user": "alice" } });
    home.call("", "POST", "/login", again).await.ok();
    client.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");
}

#[tokio::test]
async fn whatever_ends_a_device_ends_it_for_its_client() {
    let home = home().await;
    let (admin, alice) = (home.administrator("admin").await, home.user("alice").await);
    let client = Client::new(&home).await;
    let tokens = client.session("alice", "PHONE").await;
    alice.confirmed("DELETE", "/devices/PHONE", json!({})).await.ok();
    assert!(!tokens.works(&home).await);
    client.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");

    let tokens = client.session("alice", "PHONE").await;
    let change = json!({ "new_password": "another long one", "logout_devices": true });
    alice.confirmed("POST", "/account/password", change).await.ok();
    assert!(!tokens.works(&home).await);
    client.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");

    home.user("bob").await;
    let tokens = client.session("bob", "PHONE").await;
    let close = "/_synapse/admin/v1/deactivate/@bob:a.test";
    admin.post(close, json!({ "erase": true })).await.ok();
    assert!(!tokens.works(&home).await);
    client.refresh(&tokens.refresh).await.oauth_error(400, "invalid_grant");
}

#[tokio::test]
async fn whoever_is_logged_out_everywhere_is_logged_out_of_the_pages() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let code = parameter(&client.let_in(&mut browser, "alice", &[]).await, "code");
    assert!(is_in(&mut browser).await);
    alice.post("/logout/all", json!({})).await.ok();
    assert!(!is_in(&mut browser).await);
    client.token_for(&code, &[]).await.oauth_error(400, "invalid_grant");
}

async fn is_in(browser: &mut Browser<'_>) -> bool {
    browser.get(&format!("{BASE}/account")).await.html().contains("Your sessions")
}

#[tokio::test]
async fn a_device_that_an_administrator_ends_takes_its_own_browser_with_it() {
    let home = home().await;
    let admin = home.administrator("admin").await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let laptop = [("scope", "urn:matrix:client:api:* urn:matrix:client:device:LAPTOP")];
    let (mut first, mut second) = (Browser::new(&home), Browser::new(&home));
    for (device, many) in [("PHONE", false), ("PHONE", true)] {
        let code = parameter(&client.let_in(&mut first, "alice", &[]).await, "code");
        let phone = Tokens::of(client.token_for(&code, &[]).await);
        let waiting = parameter(&client.let_in(&mut first, "alice", &[]).await, "code");
        let other = parameter(&client.let_in(&mut second, "alice", &laptop).await, "code");
        let devices = "/_synapse/admin/v2/users/@alice:a.test";
        if many {
            let end = json!({ "devices": [device] });
            admin.post(&format!("{devices}/delete_devices"), end).await.ok();
        } else {
            admin.call("DELETE", &format!("{devices}/devices/{device}"), Value::Null).await.ok();
        }
        assert!(!phone.works(&home).await && !is_in(&mut first).await);
        client.token_for(&waiting, &[]).await.oauth_error(400, "invalid_grant");
        assert!(is_in(&mut second).await, "the other browser has nothing to do with it");
        assert!(Tokens::of(client.token_for(&other, &[]).await).works(&home).await);
    }
}

#[tokio::test]
async fn no_browser_stays_in_that_may_belong_to_a_device_an_administrator_ends() {
    let home = home().await;
    let admin = home.administrator("admin").await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let ended = async |device: &str| {
        let path = format!("/_synapse/admin/v2/users/@alice:a.test/devices/{device}");
        admin.call("DELETE", &path, Value::Null).await.ok();
    };
    let code = parameter(&client.let_in(&mut browser, "alice", &[]).await, "code");
    client.token_for(&code, &[]).await.ok();
    // The same browser, under another cookie.
    let page = browser.get(&format!("{BASE}/account")).await;
    let page = browser.submit(&page, "/logout", &[]).await.location();
    let page = browser.get(&page).await;
    browser.log_in(&page, "alice").await;
    assert!(is_in(&mut browser).await);
    ended("PHONE").await;
    assert!(!is_in(&mut browser).await);

    browser.open(&format!("{BASE}/account"), "alice").await;
    assert!(is_in(&mut browser).await);
    ended(&alice.device).await;
    assert!(!is_in(&mut browser).await, "the device says nothing of a browser");
}

#[tokio::test]
async fn bodies_of_another_kind_or_size_are_refused() {
    let home = home().await;
    let client = Client::new(&home).await;
    let path = format!("{BASE}/token");
    home.call("", "POST", &path, json!({ "grant_type": "authorization_code" }))
        .await
        .oauth_error(400, "invalid_request");
    client.post("/token", &[]).await.oauth_error(400, "invalid_request");
    let twice = [("client_id", client.id.as_str()), ("client_id", client.id.as_str())];
    client.post("/token", &twice).await.oauth_error(400, "invalid_request");
    let long = "x".repeat(40_000);
    client.post("/token", &[("client_id", &long)]).await.oauth_error(413, "invalid_request");
    let basic = Request::post(&path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::AUTHORIZATION, "Basic eDp5")
        .body(Body::from(encoded(&[("client_id", &client.id), ("grant_type", "refresh_token")])));
    let refused = home.send(basic.unwrap()).await;
    assert!(refused.headers.contains_key("www-authenticate"));
    refused.oauth_error(401, "invalid_client");

    register(&home, json!([])).await.oauth_error(400, "invalid_client_metadata");
    register(&home, json!({})).await.oauth_error(400, "invalid_client_metadata");
    let foreign = json!({ "redirect_uris": ["https://evil.org/"] });
    register(&home, metadata(&foreign)).await.oauth_error(400, "invalid_redirect_uri");
    let long = json!({ "software_statement": "x".repeat(20_000) });
    register(&home, metadata(&long)).await.oauth_error(413, "invalid_request");
}

#[tokio::test]
async fn registrations_are_counted_and_bounded() {
    let rates = "oauth.rates.registration = { per_second = 0.001, burst = 2 }";
    let home = home_with(rates).await;
    Client::new(&home).await;
    Client::new(&home).await;
    let refused = register(&home, metadata(&json!({}))).await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.oauth_error(429, "temporarily_unavailable");

    let home = home_with("oauth.max_clients = 2").await;
    for name in ["A", "B"] {
        Client::with(&home, json!({ "client_name": name })).await;
    }
    // None that was just used gives way.
    register(&home, metadata(&json!({ "client_name": "C" })))
        .await
        .oauth_error(429, "temporarily_unavailable");
    Client::with(&home, json!({ "client_name": "A" })).await;
}

#[tokio::test]
async fn a_client_of_an_administrator_does_not_administer() {
    let home = home().await;
    let root = home.administrator("root").await;
    let tokens = Client::new(&home).await.session("root", "PHONE").await;
    let users = "/_synapse/admin/v2/users";
    root.get(users).await.ok();
    home.call(&tokens.access, "GET", users, Value::Null).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn what_was_granted_ends_with_the_password() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let back = client.let_in(&mut browser, "alice", &[]).await;
    let begun = devices::begin(&client).await;
    let consent = browser.get(&devices::path(&begun)).await;
    browser.submit(&consent, "/link", &[("decision", "allow")]).await;
    let new = json!({ "new_password": "another long one", "logout_devices": false });
    alice.confirmed("POST", "/account/password", new).await.ok();
    client.token_for(&parameter(&back, "code"), &[]).await.oauth_error(400, "invalid_grant");
    devices::poll(&client, &begun).await.oauth_error(400, "invalid_grant");
}
