//! What is meant to happen.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn without_its_section_nothing_of_it_is_there() {
    let home = Home::new().await;
    for (method, path) in [
        ("GET", "/_matrix/client/v1/auth_metadata".to_owned()),
        ("GET", "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata".to_owned()),
        ("GET", format!("{BASE}/authorize")),
        ("GET", format!("{BASE}/account")),
        ("POST", format!("{BASE}/register")),
        ("POST", format!("{BASE}/token")),
    ] {
        home.call("", method, &path, Value::Null).await.refused(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn row_98_clients_find_what_they_need() {
    let home = home().await;
    let stable = home.call("", "GET", "/_matrix/client/v1/auth_metadata", Value::Null).await.ok();
    let path = "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata";
    assert_eq!(home.call("", "GET", path, Value::Null).await.ok(), stable);
    assert_eq!(stable["issuer"], ISSUER);
    for endpoint in ["authorization", "token", "revocation", "registration", "device_authorization"] {
        let address = stable[format!("{endpoint}_endpoint")].as_str().unwrap();
        assert!(address.starts_with(&format!("http://a.test{BASE}/")), "{address}");
    }
    assert_eq!(stable["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(stable["account_management_uri"], format!("http://a.test{BASE}/account"));
    assert_eq!(stable["account_management_actions_supported"].as_array().unwrap().len(), 6);
    let flows = home.call("", "GET", "/login", Value::Null).await.ok();
    assert!(flows["flows"].as_array().unwrap().contains(&json!({ "type": "m.login.password" })));
}

#[tokio::test]
async fn row_98_a_client_logs_in_refreshes_and_logs_out() {
    let home = home().await;
    let alice = home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);

    let asked = browser.get(&client.address(&[("login_hint", &format!("mxid:{}", alice.id))])).await;
    assert_eq!(asked.status, 200);
    assert!(asked.html().contains("value=\"@alice:a.test\""));
    let consent = browser.log_in(&asked, "ALICE").await;
    let page = consent.html();
    assert!(page.contains("<b>App</b>") && page.contains("example.com") && page.contains("PHONE"), "{page}");
    let policy = consent.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'self' com.example.app:;"), "{policy}");
    let back = browser.submit(&consent, "/authorize", &[("decision", "allow")]).await.location();
    assert!(back.starts_with(&format!("{BACK}?code=")), "{back}");
    assert_eq!((parameter(&back, "state").as_str(), parameter(&back, "iss").as_str()), ("s&=é", ISSUER));

    let given = client.token_for(&parameter(&back, "code"), &[]).await;
    assert_eq!(given.headers["cache-control"], "no-store");
    assert_eq!(given.headers["pragma"], "no-cache");
    let said = &given.json;
    assert_eq!((&said["token_type"], &said["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(said["scope"], "urn:matrix:client:api:* urn:matrix:client:device:PHONE");
    let tokens = Tokens::of(given);
    let who = home.call(&tokens.access, "GET", "/account/whoami", Value::Null).await.ok();
    assert_eq!((&who["user_id"], &who["device_id"]), (&json!(alice.id), &json!("PHONE")));
    let device = home.call(&tokens.access, "GET", "/devices/PHONE", Value::Null).await.ok();
    assert_eq!(device["display_name"], "App");

    // The answer to a refresh may get lost: the old token is good until the new one is used.
    let _lost = Tokens::of(client.refresh(&tokens.refresh).await);
    assert!(tokens.works(&home).await);
    let fresh = Tokens::of(client.refresh(&tokens.refresh).await);
    assert!(fresh.works(&home).await && !tokens.works(&home).await);

    let revoked = client.post("/revoke", &[("token", &fresh.refresh), ("client_id", "another")]).await;
    assert_eq!(revoked.status, 200);
    assert!(!fresh.works(&home).await);
    client.refresh(&fresh.refresh).await.oauth_error(400, "invalid_grant");
    alice.get("/devices/PHONE").await.refused(404, "M_NOT_FOUND");
    assert_eq!(client.post("/revoke", &[("token", &fresh.access)]).await.status, 200);
    client.post("/revoke", &[("token_type_hint", "access_token")]).await.oauth_error(400, "invalid_request");
    alice.get("/account/whoami").await.ok();
}

/// What the State's applications register: some of the pages about them are on other hosts.
fn tchap() -> [Value; 3] {
    let terms = "https://tchap.numerique.gouv.fr/cgu";
    let policy = "https://tchap.numerique.gouv.fr/politique-de-confidentialite";
    let grants = ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"];
    let native = |name: &str, redirect_uri: &str, logo: &str| {
        json!({
            "client_name": name, "client_uri": "https://tchap.gouv.fr/", "application_type": "native",
            "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none", "grant_types": grants,
            "response_types": ["code"], "logo_uri": logo, "tos_uri": terms, "policy_uri": policy,
        })
    };
    let web = json!({
        "client_name": "Tchap", "client_uri": "https://www.tchap.gouv.fr", "application_type": "web",
        "redirect_uris": ["https://www.tchap.gouv.fr/?no_universal_links=true"], "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none",
        "logo_uri": "https://www.tchap.gouv.fr/vector-icons/1024.png", "tos_uri": terms,
        "id_token_signed_response_alg": "RS256",
    });
    [
        native("Tchap Android", "fr.gouv.tchap.android.x:/", "https://tchap.gouv.fr/vector-icons/300.png"),
        native("Tchap", "fr.gouv.tchap.ios:/", "https://element.io/mobile-icon.png"),
        web,
    ]
}

#[tokio::test]
async fn row_98_the_applications_of_the_state_register_and_log_in() {
    let home = home().await;
    home.user("alice").await;
    let kept: [&[&str]; 3] = [&["logo_uri"], &[], &["logo_uri"]];
    for (written, kept) in tchap().into_iter().zip(kept) {
        let said = register(&home, written.clone()).await;
        assert_eq!(said.status, 201, "{written}: {}", said.json);
        let said = said.json;
        assert_eq!(said["redirect_uris"], written["redirect_uris"]);
        for field in ["logo_uri", "tos_uri", "policy_uri"] {
            assert_eq!(said.get(field).is_some(), kept.contains(&field), "{field}: {said}");
        }
        let client = Client { home: &home, id: said["client_id"].as_str().unwrap().to_owned() };
        let redirect_uri = written["redirect_uris"][0].as_str().unwrap();
        let change = [("redirect_uri", redirect_uri)];
        let mut browser = Browser::new(&home);
        let consent = browser.open(&client.address(&change), "alice").await;
        let page = consent.html();
        assert!(page.contains("tchap.gouv.fr)"), "{page}");
        assert!(!page.contains("numerique.gouv.fr") && !page.contains("element.io"), "{page}");
        let back = browser.submit(&consent, "/authorize", &[("decision", "allow")]).await.location();
        assert!(back.starts_with(redirect_uri), "{back}");
        assert!(Tokens::of(client.token_for(&parameter(&back, "code"), &change).await).works(&home).await);
    }
}

#[tokio::test]
async fn what_todays_clients_send_is_understood() {
    let home = home().await;
    home.user("alice").await;
    let web = json!({ "application_type": "web", "redirect_uris": ["https://app.example.com/?x=1"] });
    let client = Client::with(&home, web).await;
    let mut browser = Browser::new(&home);
    let scope = "openid urn:matrix:org.matrix.msc2967.client:api:* \
                 urn:matrix:org.matrix.msc2967.client:device:wVxCNsGaBc";
    let change = [
        ("scope", scope),
        ("redirect_uri", "https://app.example.com/?x=1"),
        ("response_mode", "fragment"),
        ("nonce", "n"),
        ("prompt", "consent"),
    ];
    let back = client.let_in(&mut browser, "alice", &change).await;
    assert!(back.starts_with("https://app.example.com/?x=1#code="), "{back}");
    let (_, answer) = back.split_once('#').unwrap();
    let code = parameter(&format!("?{answer}"), "code");
    let change = [("redirect_uri", "https://app.example.com/?x=1")];
    let said = client.token_for(&code, &change).await.ok();
    let granted =
        "urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:wVxCNsGaBc";
    assert_eq!(said["scope"], granted);
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", client.id.as_str()),
        ("refresh_token", said["refresh_token"].as_str().unwrap()),
        ("scope", granted),
    ];
    assert_eq!(client.post("/token", &refresh).await.ok()["scope"], granted);
}

#[tokio::test]
async fn a_program_on_the_same_machine_listens_where_it_can() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let change = [("redirect_uri", "http://127.0.0.1:41234/back")];
    let back = client.let_in(&mut browser, "alice", &change).await;
    assert!(back.starts_with("http://127.0.0.1:41234/back?code="), "{back}");
    let code = parameter(&back, "code");
    client
        .token_for(&code, &[("redirect_uri", "http://127.0.0.1/back")])
        .await
        .oauth_error(400, "invalid_grant");
    client.token_for(&code, &change).await.ok();
}

#[tokio::test]
async fn a_user_may_refuse_or_be_somebody_else() {
    let home = home().await;
    let (_, bob) = (home.user("alice").await, home.user("bob").await);
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let consent = browser.open(&client.address(&[]), "alice").await;
    let back = browser.submit(&consent, "/authorize", &[("decision", "refuse")]).await.location();
    assert_eq!(parameter(&back, "error"), "access_denied");
    assert_eq!((parameter(&back, "state").as_str(), parameter(&back, "iss").as_str()), ("s&=é", ISSUER));

    let again = browser.get(&client.address(&[])).await;
    let onward = browser.submit(&again, "/logout", &[]).await.location();
    assert!(browser.cookie.is_none());
    let asked = browser.get(&onward).await;
    let consent = browser.log_in(&asked, "bob").await;
    let back = browser.submit(&consent, "/authorize", &[("decision", "allow")]).await.location();
    let tokens = Tokens::of(client.token_for(&parameter(&back, "code"), &[]).await);
    let who = home.call(&tokens.access, "GET", "/account/whoami", Value::Null).await.ok();
    assert_eq!(who["user_id"], bob.id);
    // A client may want the user to show who they are once more.
    assert!(browser.get(&client.address(&[("prompt", "login")])).await.html().contains("name=\"password\""));
    assert!(!browser.get(&client.address(&[])).await.html().contains("name=\"password\""));
}

#[tokio::test]
async fn the_same_application_is_one_client() {
    let home = home().await;
    let (one, two) = (Client::new(&home).await, Client::new(&home).await);
    assert_eq!(one.id, two.id);
    let other = Client::with(&home, json!({ "client_name": "Other" })).await;
    assert_ne!(one.id, other.id);
    let said = register(&home, metadata(&json!({ "contacts": ["a@example.com"] }))).await;
    assert_eq!((said.status.as_u16(), &said.json["client_id"]), (201, &json!(one.id)));
    assert_eq!(said.json["client_name"], "App");
    assert!(said.json.get("contacts").is_none() && said.json.get("client_secret").is_none());
}

#[tokio::test]
async fn pages_speak_french_to_those_who_do() {
    let home = home().await;
    let client = Client::new(&home).await;
    let mut request = Request::get(client.address(&[]));
    request = request.header("accept-language", "fr-FR,fr;q=0.9,en;q=0.1");
    let page = home.send(request.body(Body::empty()).unwrap()).await.html();
    assert!(page.contains("<html lang=\"fr\">") && page.contains("Mot de passe"), "{page}");
    let page = Browser::new(&home).get(&client.address(&[])).await.html();
    assert!(page.contains("<html lang=\"en\">") && page.contains("Password"), "{page}");
    let style = home.call("", "GET", &format!("{BASE}/style.css"), Value::Null).await;
    assert_eq!(style.headers["content-type"], "text/css; charset=utf-8");
}
