//! Devices without a browser.

use serde_json::{Value, json};

use super::*;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

pub(super) async fn begin(client: &Client<'_>) -> Value {
    let scope = "urn:matrix:client:api:* urn:matrix:client:device:TV";
    client.post("/device", &[("client_id", &client.id), ("scope", scope)]).await.ok()
}

pub(super) async fn poll(client: &Client<'_>, begun: &Value) -> Answer {
    let code = begun["device_code"].as_str().unwrap();
    client.post("/token", &[("grant_type", GRANT), ("client_id", &client.id), ("device_code", code)]).await
}

pub(super) fn path(begun: &Value) -> String {
    let address = begun["verification_uri_complete"].as_str().unwrap();
    address.strip_prefix("http://a.test").unwrap().to_owned()
}

#[tokio::test]
async fn a_user_lets_a_device_in_that_shows_a_code() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let begun = begin(&client).await;
    assert_eq!((&begun["expires_in"], &begun["interval"]), (&json!(900), &json!(5)));
    assert_eq!(begun["verification_uri"], format!("http://a.test{BASE}/link"));
    let shown = begun["user_code"].as_str().unwrap();
    assert_eq!((shown.len(), &shown[4..5]), (9, "-"));

    // Somebody types the code; the other way has it in the address.
    let mut browser = Browser::new(&home);
    let asked = browser.open(&format!("{BASE}/link"), "alice").await;
    let wrong = browser.submit(&asked, "/link", &[("user_code", "BBBB-BBBB")]).await;
    assert!(wrong.html().contains("not valid"), "{}", wrong.html());
    let typed = shown.to_lowercase().replace('-', " ");
    let typed = browser.submit(&asked, "/link", &[("user_code", &typed)]).await;
    assert!(typed.html().contains("<b>App</b>") && typed.html().contains("TV"), "{}", typed.html());
    let consent = browser.get(&path(&begun)).await;
    assert!(consent.html().contains(shown), "{}", consent.html());
    let done = browser.submit(&consent, "/link", &[("decision", "allow")]).await;
    assert!(done.html().contains("Done"), "{}", done.html());

    let tokens = Tokens::of(poll(&client, &begun).await);
    let who = home.call(&tokens.access, "GET", "/account/whoami", Value::Null).await.ok();
    assert_eq!((&who["user_id"], &who["device_id"]), (&json!(alice.id), &json!("TV")));
    poll(&client, &begun).await.oauth_error(400, "invalid_grant");
    Tokens::of(client.refresh(&tokens.refresh).await);
}

#[tokio::test(start_paused = true)]
async fn an_impatient_device_is_slowed_down_and_a_refused_one_told() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let begun = begin(&client).await;
    poll(&client, &begun).await.oauth_error(400, "authorization_pending");
    poll(&client, &begun).await.oauth_error(400, "slow_down");

    let begun = begin(&client).await;
    let mut browser = Browser::new(&home);
    let consent = browser.open(&path(&begun), "alice").await;
    browser.submit(&consent, "/link", &[("decision", "refuse")]).await;
    let late = browser.submit(&consent, "/link", &[("decision", "allow")]).await;
    assert!(late.html().contains("not valid"), "it is decided");
    poll(&client, &begun).await.oauth_error(400, "access_denied");
}

#[tokio::test]
async fn a_device_code_is_its_clients_alone() {
    let home = home().await;
    home.user("alice").await;
    let (client, other) =
        (Client::new(&home).await, Client::with(&home, json!({ "client_name": "B" })).await);
    let begun = begin(&client).await;
    poll(&other, &begun).await.oauth_error(400, "invalid_grant");
    let scope = "urn:matrix:client:api:* urn:matrix:client:device:TV";
    let browsers = json!({ "grant_types": ["authorization_code", "refresh_token"] });
    let browsers = Client::with(&home, browsers).await;
    let refused = browsers.post("/device", &[("client_id", &browsers.id), ("scope", scope)]).await;
    refused.oauth_error(400, "unauthorized_client");
    poll(&browsers, &begun).await.oauth_error(400, "unauthorized_client");
    client
        .post("/device", &[("client_id", "nobody"), ("scope", scope)])
        .await
        .oauth_error(401, "invalid_client");
    client.post("/device", &[("client_id", &client.id)]).await.oauth_error(400, "invalid_scope");
    client.post("/device", &[("scope", scope)]).await.oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn codes_are_not_guessed_or_asked_for_without_end() {
    let more = "oauth.rates.device = { per_second = 0.001, burst = 2 }\n\
                oauth.rates.user_code = { per_second = 0.001, burst = 3 }";
    let home = home_with(more).await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let (begun, _) = (begin(&client).await, begin(&client).await);
    let scope = "urn:matrix:client:api:* urn:matrix:client:device:TV";
    let refused = client.post("/device", &[("client_id", &client.id), ("scope", scope)]).await;
    refused.oauth_error(429, "temporarily_unavailable");
    assert!(refused.headers.contains_key("retry-after"));

    let mut browser = Browser::new(&home);
    browser.open(&format!("{BASE}/link"), "alice").await;
    for _ in 0..3 {
        assert_eq!(browser.get(&format!("{BASE}/link?user_code=BBBBBBBB")).await.status, 200);
    }
    let right = browser.get(&path(&begun)).await;
    assert_eq!(right.status, 429);
    assert!(right.headers.contains_key("retry-after"));
}
