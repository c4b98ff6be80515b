//! The way there and back when everybody means well.

use http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::{CLIENT, REDIRECT, Stage, location, page, person, provider::Signing, token_in};

#[tokio::test]
async fn an_agent_logs_in_by_the_provider_and_has_an_account() {
    let stage = Stage::of_agents().await;
    let flows = stage.home.call("", "GET", "/login", Value::Null).await.ok();
    let providers = json!([{ "id": "proconnect", "name": "ProConnect" }]);
    assert_eq!(flows["flows"][0], json!({ "type": "m.login.sso", "identity_providers": providers }));

    let jean = person("jean's number", "Jean.Martin@dinum.gouv.fr");
    let first = stage.logged_in(&jean).await;
    assert_eq!(first["user_id"], "@jean.martin-dinum.gouv.fr:a.test");
    let token = first["access_token"].as_str().unwrap();
    let ask = async |path: &str| stage.home.call(token, "GET", path, Value::Null).await.ok();
    let profile = ask("/profile/@jean.martin-dinum.gouv.fr:a.test").await;
    assert_eq!(profile["displayname"], "Jean Martin [Dinum]");
    let addresses = ask("/account/3pid").await;
    assert_eq!(addresses["threepids"][0]["address"], "jean.martin@dinum.gouv.fr");
    assert!(addresses["threepids"][0]["validated_at"].as_u64().unwrap() > 0);

    // The address is what one has here: another one there changes nothing.
    let again = stage.logged_in(&person("jean's number", "jean.dupont@dinum.gouv.fr")).await;
    assert_eq!(again["user_id"], first["user_id"]);
    assert_ne!(again["device_id"], first["device_id"]);
    assert_eq!(stage.provider.asked("discovery"), 1, "documents are kept");
    assert_eq!(stage.provider.asked("jwks"), 1);
}

#[tokio::test]
async fn every_accepted_kind_of_signature_is_understood() {
    let lines = "emails = \"trusted\"\nclient_auth = \"post\"\n";
    let stage = Stage::with("[identity]\nprofile = \"agents\"\naddresses = \"any\"\n", lines).await;
    for (index, signing) in [Signing::Rsa, Signing::Ecdsa, Signing::Ed25519].into_iter().enumerate() {
        for signed_userinfo in [true, false] {
            stage.provider.0.lock().signing = signing;
            stage.provider.0.lock().signed_userinfo = signed_userinfo;
            let who = stage.logged_in(&person(&format!("s{index}"), &format!("a{index}@x.fr"))).await;
            assert_eq!(who["user_id"], format!("@a{index}-x.fr:a.test"), "{signing:?}");
        }
    }
}

#[tokio::test]
async fn what_is_asked_of_the_provider_follows_the_configuration_and_the_client() {
    let lines = "scopes = [\"openid\", \"email\", \"siret\"]\nacr_values = [\"eidas2\", \"eidas1\"]\n";
    let stage = Stage::with("", lines).await;
    let browser = stage.browser();
    let asked = async |path: &str, query: &str| {
        let path = format!("/_matrix/client/{path}?redirectUrl=tchap%3A%2F%2Fconnect{query}");
        let url = Url::parse(&location(&browser.get(&path).await)).unwrap();
        let pairs = url.query_pairs().into_owned();
        pairs.collect::<std::collections::BTreeMap<String, String>>()
    };
    let plain = asked("v3/login/sso/redirect", "").await;
    assert_eq!(plain["scope"], "openid email siret");
    assert_eq!(plain["acr_values"], "eidas2 eidas1");
    assert_eq!(plain["fixed"], "1", "what the endpoint has of its own stays");
    assert!(!plain.contains_key("prompt") && !plain.contains_key("login_hint"));
    // The client's own state is none of the provider's business.
    assert!(!plain.values().any(|value| value.contains("tchap")));
    let old = asked("r0/login/sso/redirect", "&org.matrix.msc3824.action=REGISTER").await;
    assert_eq!(old["prompt"], "create");
    let named = asked("r0/login/sso/redirect/proconnect", "&action=login&login_hint=A@x.fr").await;
    assert_eq!((named["login_hint"].as_str(), named.get("prompt")), ("a@x.fr", None));
    let odd = asked("v3/login/sso/redirect/proconnect", "&login_hint=a@b@c&action=dance").await;
    assert!(!odd.contains_key("login_hint") && !odd.contains_key("prompt"));
}

#[tokio::test]
async fn row_97_an_old_client_has_somebody_register_by_the_provider() {
    let stage = Stage::of_agents().await;
    let browser = stage.browser();
    let path = "/_matrix/client/r0/login/sso/redirect?redirectUrl=tchap%3A%2F%2Fconnect\
                &org.matrix.msc3824.action=REGISTER";
    let provider = location(&browser.get(path).await);
    assert!(provider.contains("prompt=create"), "{provider}");
    let back = stage.provider.log_in(&provider, &person("s", "jean@x.fr"));
    let client = location(&browser.get(&back).await);
    assert!(client.starts_with("tchap://connect?loginToken="), "{client}");
    let body = json!({ "type": "m.login.token", "token": token_in(&client) });
    let said = stage.home.call("", "POST", "/_matrix/client/r0/login", body).await.ok();
    assert_eq!(said["user_id"], "@jean-x.fr:a.test");
    let token = said["access_token"].as_str().unwrap();
    stage.home.call(token, "GET", "/account/whoami", Value::Null).await.ok();
}

#[tokio::test]
async fn a_client_that_nobody_vouches_for_gets_no_token_by_itself() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    for client in ["https://app.test/web/#/home", CLIENT] {
        let browser = stage.browser();
        let back = stage.provider.log_in(&browser.depart(client).await, &jean);
        let to = location(&browser.get(&back).await);
        assert!(to.starts_with(client.split('#').next().unwrap()) && to.contains("loginToken="), "{to}");
    }
    for (client, shown) in [
        ("https://evil.test/?x=\"><script>alert(1)</script>", "<b>https://evil.test</b>"),
        ("https://app.test/website", "<b>https://app.test</b>"),
        ("https://app.test.evil.test/web", "<b>https://app.test.evil.test</b>"),
        ("tchapx://connect", "<b>tchapx:</b>"),
    ] {
        let browser = stage.browser();
        let back = stage.provider.log_in(&browser.depart(client).await, &jean);
        let asked = page(&browser.get(&back).await, StatusCode::OK);
        assert!(asked.contains(shown) && asked.contains("@jean-x.fr:a.test"), "{asked}");
        assert!(!asked.contains("<script"), "{asked}");
        let token = token_in(&super::attribute(&asked, "<a href=\""));
        let body = json!({ "type": "m.login.token", "token": token });
        stage.home.call("", "POST", "/login", body.clone()).await.ok();
        stage.home.call("", "POST", "/login", body).await.refused(403, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn people_choose_between_providers() {
    let other = "\n[[sso.providers]]\nid = \"other\"\nname = \"<Other>\"\nissuer = \"https://other.test\"\nclient_id = \"c\"\n";
    let stage = Stage::with("", other).await;
    let browser = stage.browser();
    let path = format!("{REDIRECT}?redirectUrl=https%3A%2F%2Fapp.test%2F%3Fa%3D1%26b%3D2");
    let choices = page(&browser.get(&path).await, StatusCode::OK);
    assert!(choices.contains("&lt;Other&gt;") && choices.contains("ProConnect"), "{choices}");
    let link = super::attribute(&choices, "<a href=\"");
    assert!(location(&browser.get(&link).await).starts_with("https://id.test/authorize"));
    // One that is not there does not keep people from the others.
    let down = browser.get(&format!("{REDIRECT}/other?redirectUrl={CLIENT}")).await;
    assert!(page(&down, StatusCode::BAD_GATEWAY).contains("does not answer"));
}

#[tokio::test]
async fn without_providers_there_is_no_single_sign_on() {
    let home = super::Home::new().await;
    let flows = home.call("", "GET", "/login", Value::Null).await.ok();
    assert!(!flows.to_string().contains("m.login.sso"), "{flows}");
    let there = format!("{REDIRECT}?redirectUrl=tchap://connect");
    home.call("", "GET", &there, Value::Null).await.refused(404, "M_UNRECOGNIZED");
    let there = format!("{REDIRECT}/x?redirectUrl=tchap://connect");
    home.call("", "GET", &there, Value::Null).await.refused(404, "M_NOT_FOUND");
    let fallback = "/auth/m.login.sso/fallback/web?session=x";
    home.call("", "GET", fallback, Value::Null).await.refused(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn pages_speak_the_language_of_the_browser() {
    let stage = Stage::of_agents().await;
    for (wanted, word) in [("fr-FR,en;q=0.5", "Recommencez"), ("en", "begin again"), ("de", "Recommencez")] {
        let request = http::Request::get("/_matrix/client/unstable/chappe/oidc/callback?state=x&code=y")
            .header(http::header::ACCEPT_LANGUAGE, wanted);
        let answer = stage.home.send(request.body(axum::body::Body::empty()).unwrap()).await;
        assert!(page(&answer, StatusCode::BAD_REQUEST).contains(word), "{wanted}");
    }
}

#[tokio::test]
async fn a_browser_ends_its_session_with_the_provider_where_that_is_wanted() {
    let agents = "[identity]\nprofile = \"agents\"\naddresses = \"any\"\n";
    let stage = Stage::with(agents, "emails = \"trusted\"\nend_session = true\n").await;
    let browser = stage.browser();
    let back = stage.provider.log_in(&browser.depart(CLIENT).await, &person("s", "jean@x.fr"));
    location(&browser.get(&back).await);
    assert_eq!(browser.cookies.lock().len(), 1, "what names the session there");
    let there = "/_matrix/client/unstable/chappe/oidc/logout/proconnect";
    let leaving = async || {
        let url = Url::parse(&location(&browser.get(there).await)).unwrap();
        assert_eq!((url.host_str(), url.path()), (Some("id.test"), "/end"));
        let pairs = url.query_pairs().into_owned();
        pairs.collect::<std::collections::BTreeMap<String, String>>()
    };
    let said = leaving().await;
    assert_eq!(said["id_token_hint"].split('.').count(), 3);
    assert_eq!(said["client_id"], "chappe");
    let after = "https://a.test/_matrix/client/unstable/chappe/oidc/logged_out";
    assert_eq!(said["post_logout_redirect_uri"], after);
    let path = Url::parse(after).unwrap().path().to_owned();
    assert!(page(&browser.get(&path).await, StatusCode::OK).contains("logged out"));
    assert!(browser.cookies.lock().is_empty());
    assert!(!leaving().await.contains_key("id_token_hint"));
    browser.get("/_matrix/client/unstable/chappe/oidc/logout/nobody").await.refused(404, "M_NOT_FOUND");
    // Where it is not wanted, nothing is kept.
    let stage = Stage::of_agents().await;
    let browser = stage.browser();
    let back = stage.provider.log_in(&browser.depart(CLIENT).await, &person("s", "jean@x.fr"));
    location(&browser.get(&back).await);
    assert!(browser.cookies.lock().is_empty());
    browser.get(there).await.refused(404, "M_NOT_FOUND");
}
