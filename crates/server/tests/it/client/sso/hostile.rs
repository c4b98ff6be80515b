//! Lying providers, stolen answers, hostile clients.

use std::{sync::Arc, time::Duration};

use chappe_world::Fate;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::{
    CLIENT, REDIRECT, Stage, location, page, person,
    provider::{Lie, Signing},
};

const CALLBACK: &str = "/_matrix/client/unstable/chappe/oidc/callback";

fn lie(change: impl Fn(&mut Value, &mut Value) + Send + Sync + 'static) -> Lie {
    Arc::new(change)
}

fn claiming(name: &'static str, value: Value) -> Lie {
    lie(move |_, claims| claims[name] = value.clone())
}

#[tokio::test]
async fn no_token_is_believed_that_is_not_the_providers_for_this_browser_now() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    let now = stage.home.world.now() / 1000;
    let lies: Vec<(&str, Lie)> = vec![
        ("nonce", claiming("nonce", json!("another one"))),
        ("no nonce", claiming("nonce", Value::Null)),
        ("audience", claiming("aud", json!("somebody else"))),
        ("audiences", claiming("aud", json!(["chappe", "somebody else"]))),
        ("party", claiming("azp", json!("somebody else"))),
        ("issuer", claiming("iss", json!("https://evil.test"))),
        ("expired", claiming("exp", json!(now - 120))),
        ("made long ago", claiming("iat", json!(now - 3600))),
        ("made tomorrow", claiming("iat", json!(now + 86_400))),
        ("no subject", claiming("sub", Value::Null)),
        ("another access token", claiming("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA"))),
        ("key", lie(|header, _| header["kid"] = json!("unknown"))),
        ("key of another kind", lie(|header, _| header["kid"] = json!("ecdsa"))),
        ("critical", lie(|header, _| header["crit"] = json!(["exp"]))),
    ];
    for (what, lie) in lies {
        stage.provider.0.lock().lie = Some(lie);
        let said = stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
        assert!(said.contains("did not confirm who you are"), "{what}: {said}");
    }
    stage.provider.0.lock().lie = None;
    for signing in [Signing::None, Signing::Hmac, Signing::Stranger] {
        stage.provider.0.lock().signing = signing;
        stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
    }
    stage.provider.0.lock().signing = Signing::Rsa;
    for lie_of_userinfo in [
        claiming("sub", json!("somebody else")),
        claiming("iss", json!("https://evil.test")),
        claiming("aud", json!("somebody else")),
        claiming("exp", json!(now - 120)),
        lie(|header, _| header["alg"] = json!("none")),
    ] {
        stage.provider.0.lock().lie_of_userinfo = Some(lie_of_userinfo);
        stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
    }
    // Where the configuration wants it signed, it is signed or nothing.
    stage.provider.0.lock().lie_of_userinfo = None;
    stage.provider.0.lock().signed_userinfo = false;
    stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
    let nobody = ruma::owned_user_id!("@jean-x.fr:a.test");
    assert!(stage.home.accounts.user(&nobody).await.unwrap().is_none(), "nobody was let in");
    stage.provider.0.lock().signed_userinfo = true;
    stage.logged_in(&jean).await;
}

#[tokio::test]
async fn a_level_of_authentication_that_is_needed_was_reached() {
    let stage = Stage::with("", "required_acr = [\"eidas2\"]\nemails = \"ignored\"\n").await;
    let jean = person("s", "jean@x.fr");
    stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
    stage.provider.0.lock().lie = Some(claiming("acr", json!("eidas2")));
    let jean = [("preferred_username".to_owned(), json!("jean"))].into_iter().chain(jean).collect();
    assert_eq!(stage.logged_in(&jean).await["user_id"], "@jean:a.test");
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_once_and_not_at_every_lie() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    stage.logged_in(&jean).await;
    stage.provider.forget();
    stage.provider.0.lock().lie = Some(lie(|header, _| header["kid"] = json!("unknown")));
    for _ in 0..5 {
        stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
    }
    assert_eq!(stage.provider.asked("jwks"), 0, "they were fetched a moment ago");
    tokio::time::advance(Duration::from_secs(61)).await;
    for _ in 0..5 {
        stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
    }
    assert_eq!(stage.provider.asked("jwks"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_is_taken_once_in_the_browser_that_left_and_in_time() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    let (browser, stranger) = (stage.browser(), stage.browser());
    let back = stage.provider.log_in(&browser.depart(CLIENT).await, &jean);
    // Another browser, with nothing, with a log-in of its own, with a cookie made up.
    page(&stranger.get(&back).await, StatusCode::BAD_REQUEST);
    stranger.depart(CLIENT).await;
    page(&stranger.get(&back).await, StatusCode::BAD_REQUEST);
    let (name, own) = {
        let (mine, others) = (browser.cookies.lock(), stranger.cookies.lock());
        (mine.keys().next().unwrap().clone(), others.values().next().unwrap().clone())
    };
    for value in [own, "x".to_owned(), "A".repeat(100)] {
        stranger.cookies.lock().insert(name.clone(), value);
        page(&stranger.get(&back).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(stage.provider.asked("token"), 0, "the code was not given in for a stranger");
    let kept = browser.cookies.lock().clone();
    for change in ["&iss=https%3A%2F%2Fevil.test", "&state=x"] {
        let other = stage.browser();
        let back = stage.provider.log_in(&other.depart(CLIENT).await, &jean);
        page(&other.get(&format!("{back}{change}")).await, StatusCode::BAD_REQUEST);
    }
    location(&browser.get(&back).await);
    assert!(browser.cookies.lock().is_empty(), "the cookie is taken away");
    // The same again, though the cookie was kept.
    *browser.cookies.lock() = kept;
    page(&browser.get(&back).await, StatusCode::BAD_REQUEST);
    assert_eq!(stage.provider.asked("token"), 1);
    let late = stage.provider.log_in(&browser.depart(CLIENT).await, &jean);
    tokio::time::advance(Duration::from_mins(16)).await;
    page(&browser.get(&late).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn codes_that_are_refused_or_missing_let_nobody_in() {
    let stage = Stage::of_agents().await;
    let browser = stage.browser();
    let state =
        |location: &str| location.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let long = format!("code={}", "x".repeat(5000));
    for (query, status) in [
        ("code=made-up", StatusCode::BAD_GATEWAY),
        ("code=", StatusCode::FORBIDDEN),
        (long.as_str(), StatusCode::FORBIDDEN),
        ("", StatusCode::FORBIDDEN),
        ("error=access_denied&error_description=%3Cscript%3E", StatusCode::FORBIDDEN),
        ("error=server_error&code=x", StatusCode::FORBIDDEN),
    ] {
        let state = state(&browser.depart(CLIENT).await);
        let said = page(&browser.get(&format!("{CALLBACK}?{query}&state={state}")).await, status);
        assert!(!said.contains("script"), "{said}");
    }
    // The code of another log-in: its verifier is another one.
    let (mine, other) = (browser.depart(CLIENT).await, browser.depart(CLIENT).await);
    let stolen = stage.provider.log_in(&other, &person("victim", "victim@x.fr"));
    let code = stolen.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let injected = format!("{CALLBACK}?code={code}&state={}", state(&mine));
    page(&browser.get(&injected).await, StatusCode::BAD_GATEWAY);
    for odd in ["", "?", "?state=%ff", "?state=a&state=b", "?state[]=x"] {
        page(&browser.get(&format!("{CALLBACK}{odd}")).await, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn what_is_no_clients_address_gets_nobody_anywhere() {
    let stage = Stage::of_agents().await;
    let browser = stage.browser();
    for hostile in [
        "",
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,x",
        "//evil.test/",
        "/x",
        "https://a.test@evil.test/",
        "https://evil.test/%0d%0aSet-Cookie:%20x",
        "vbscript:x",
        "file:///etc/passwd",
    ] {
        let query: String = url::form_urlencoded::byte_serialize(hostile.as_bytes()).collect();
        let answer = browser.get(&format!("{REDIRECT}/proconnect?redirectUrl={query}")).await;
        if hostile.contains("%0d") {
            // Written in code twice, it stays in code.
            assert!(!location(&answer).contains('\n'));
        } else {
            answer.refused(400, "M_INVALID_PARAM");
        }
    }
    for (path, errcode) in [("", "M_MISSING_PARAM"), ("/proconnect", "M_MISSING_PARAM")] {
        browser.get(&format!("{REDIRECT}{path}")).await.refused(400, errcode);
    }
    let unknown = browser.get(&format!("{REDIRECT}/nobody?redirectUrl=tchap://connect")).await;
    unknown.refused(404, "M_NOT_FOUND");
    let long = format!("{REDIRECT}?redirectUrl=https://a/{}", "x".repeat(3000));
    browser.get(&long).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test(start_paused = true)]
async fn a_slow_huge_or_senseless_provider_costs_little_and_opens_nothing() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    let begun = stage.browser().get(&format!("{REDIRECT}?redirectUrl={CLIENT}")).await;
    location(&begun);
    for (endpoint, status, body) in [
        ("token", StatusCode::OK, "x".repeat(1 << 20)),
        ("token", StatusCode::OK, "not json".to_owned()),
        ("token", StatusCode::OK, r#"{"access_token":"a","token_type":"mac","id_token":"x.y.z"}"#.to_owned()),
        ("token", StatusCode::OK, r#"{"access_token":"a","token_type":"Bearer"}"#.to_owned()),
        ("token", StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        ("token", StatusCode::FOUND, String::new()),
        ("userinfo", StatusCode::OK, "x".repeat(1 << 20)),
        ("userinfo", StatusCode::FORBIDDEN, String::new()),
    ] {
        stage.provider.0.lock().instead.insert(endpoint, (status, body));
        stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
        stage.provider.0.lock().instead.clear();
    }
    let begun = tokio::time::Instant::now();
    stage
        .net
        .judge(|_, _, request| if request.uri().path() == "/token" { Fate::Lose } else { Fate::Deliver });
    stage.refused(&jean, StatusCode::BAD_GATEWAY).await;
    assert!(begun.elapsed() < Duration::from_secs(15));
    stage.net.judge(|_, _, _| Fate::Deliver);
    stage.logged_in(&jean).await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_away_is_left_alone_for_a_moment() {
    let stage = Stage::of_agents().await;
    let there = format!("{REDIRECT}?redirectUrl={CLIENT}");
    let browser = stage.browser();
    let other = json!({
        "issuer": "https://evil.test", "authorization_endpoint": "https://evil.test/", "jwks_uri": "https://evil.test/",
        "token_endpoint": "https://evil.test/",
    });
    let plain = json!({
        "issuer": super::provider::ISSUER, "authorization_endpoint": "https://id.test/authorize",
        "jwks_uri": "https://id.test/jwks", "token_endpoint": "http://id.test/token",
    });
    for document in [other.to_string(), plain.to_string(), "x".repeat(1 << 20), "[]".to_owned()] {
        stage.provider.0.lock().instead.insert("discovery", (StatusCode::OK, document));
        stage.provider.forget();
        for _ in 0..3 {
            page(&browser.get(&there).await, StatusCode::BAD_GATEWAY);
        }
        assert_eq!(stage.provider.asked("discovery"), 1);
        tokio::time::advance(Duration::from_secs(11)).await;
    }
    stage.provider.0.lock().instead.clear();
    location(&browser.get(&there).await);
    // What was known does for a while when it is away later.
    tokio::time::advance(Duration::from_hours(2)).await;
    stage.provider.0.lock().instead.insert("discovery", (StatusCode::BAD_GATEWAY, String::new()));
    location(&browser.get(&there).await);
    tokio::time::advance(Duration::from_hours(24)).await;
    page(&browser.get(&there).await, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn steps_on_the_way_are_counted_by_address() {
    let rates = "[client.rates]\nsso = { per_second = 0.001, burst = 3 }\n";
    let stage = Stage::with(rates, "").await;
    let there = format!("{REDIRECT}?redirectUrl={CLIENT}");
    for _ in 0..3 {
        location(&stage.browser().get(&there).await);
    }
    for path in [
        there.as_str(),
        "/_matrix/client/v3/login/sso/redirect/proconnect?redirectUrl=tchap:",
        "/_matrix/client/v3/auth/m.login.sso/fallback/web?session=x",
        CALLBACK,
    ] {
        stage.browser().get(path).await.refused(429, "M_LIMIT_EXCEEDED");
    }
    let approve = Request::post("/_matrix/client/unstable/chappe/oidc/approve");
    stage.browser().send(approve, String::new()).await.refused(429, "M_LIMIT_EXCEEDED");
}

/// One of them could have sent a victim to another one, and pass on what that one answers.
#[tokio::test]
async fn where_there_are_several_providers_each_says_who_it_is() {
    let other = "\n[[sso.providers]]\nid = \"other\"\nname = \"Other\"\nissuer = \"https://other.test\"\nclient_id = \"c\"\n";
    let sections = "[identity]\naddresses = \"any\"\n";
    let stage = Stage::with(sections, &format!("emails = \"trusted\"\n{other}")).await;
    let jean = person("s", "jean@x.fr");
    for (said, comes_in) in [
        (String::new(), false),
        ("&iss=https%3A%2F%2Fother.test".to_owned(), false),
        (format!("&iss={}", super::provider::ISSUER.replace(':', "%3A").replace('/', "%2F")), true),
    ] {
        let browser = stage.browser();
        let back = stage.provider.log_in(&browser.depart(CLIENT).await, &jean);
        let arrived = browser.get(&format!("{back}{said}")).await;
        if comes_in {
            super::token_in(&location(&arrived));
        } else {
            page(&arrived, StatusCode::BAD_REQUEST);
        }
    }
}
