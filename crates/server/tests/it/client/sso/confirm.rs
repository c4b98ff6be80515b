//! Operations that are confirmed by the provider: user-interactive authentication without a password.

use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{Browser, Stage, location, page, person, provider::Person};

/// An agent with two devices: the token of the first, the name of the second.
async fn agent(stage: &Stage, jean: &Person) -> (String, String) {
    let (first, second) = (stage.logged_in(jean).await, stage.logged_in(jean).await);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&first["access_token"]), text(&second["device_id"]))
}

fn fallback(session: &Value) -> String {
    format!("/_matrix/client/v3/auth/m.login.sso/fallback/web?session={}", session.as_str().unwrap())
}

/// Goes to the provider with the session; gives what comes of it there.
async fn prove(stage: &Stage, browser: &Browser<'_>, session: &Value, who: &Person) -> super::Answer {
    let there = location(&browser.get(&fallback(session)).await);
    assert!(there.contains("prompt=login"), "{there}");
    let back = stage.provider.log_in(&there, who);
    browser.get(&back).await
}

#[tokio::test]
async fn a_device_is_ended_after_proof_and_approval() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    let (token, device) = agent(&stage, &jean).await;
    let path = format!("/devices/{device}");
    let ask = async |auth: Value| {
        let body = if auth.is_null() { json!({}) } else { json!({ "auth": auth }) };
        stage.home.call(&token, "DELETE", &path, body).await
    };
    let asked = ask(Value::Null).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
    assert_eq!(asked.json["flows"], json!([{ "stages": ["m.login.sso"] }]));
    let session = &asked.json["session"];
    let only = json!({ "session": session });
    assert_eq!(ask(only.clone()).await.status, StatusCode::UNAUTHORIZED);
    let claimed = ask(json!({ "type": "m.login.sso", "session": session })).await;
    assert_eq!(claimed.status, StatusCode::UNAUTHORIZED, "saying so is no proof: {}", claimed.json);

    let browser = stage.browser();
    let question = page(&prove(&stage, &browser, session, &jean).await, StatusCode::OK);
    assert!(
        question.contains(&format!("DELETE {path}")) && question.contains("@jean-x.fr:a.test"),
        "{question}"
    );
    assert_eq!(ask(only.clone()).await.status, StatusCode::UNAUTHORIZED, "proved, but not approved");
    let done = browser.press(&question).await;
    let policy = done.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    let shown = page(&done, StatusCode::OK);
    assert!(shown.contains("onAuthDone()") && shown.contains("postMessage"), "{shown}");
    let script = shown.split("<script>").nth(1).unwrap().split("</script>").next().unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, script.as_bytes());
    let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash);
    assert!(policy.contains(&format!("script-src 'sha256-{hash}'")), "{policy}");
    page(&browser.press(&question).await, StatusCode::BAD_REQUEST);
    ask(only.clone()).await.ok();
    let gone = stage.home.call(&token, "GET", &path, Value::Null).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "the device is gone");
    assert_eq!(ask(only).await.status, StatusCode::UNAUTHORIZED, "what was approved is done once");
}

#[tokio::test]
async fn nobody_confirms_for_somebody_else() {
    let stage = Stage::of_agents().await;
    let (jean, eve) = (person("s", "jean@x.fr"), person("e", "eve@x.fr"));
    let (token, device) = agent(&stage, &jean).await;
    stage.logged_in(&eve).await;
    let path = format!("/devices/{device}");
    let asked = stage.home.call(&token, "DELETE", &path, json!({})).await;
    let session = &asked.json["session"];
    for other in [eve, person("nobody", "nobody@x.fr")] {
        let said = page(&prove(&stage, &stage.browser(), session, &other).await, StatusCode::FORBIDDEN);
        assert!(said.contains("another account"), "{said}");
    }
    let nobody = ruma::owned_user_id!("@nobody-x.fr:a.test");
    assert!(stage.home.accounts.user(&nobody).await.unwrap().is_none(), "confirming makes no accounts");
    // An old log-in there is no proof.
    stage.provider.0.lock().lie = Some(std::sync::Arc::new(|_, claims| {
        claims["auth_time"] = json!(claims["iat"].as_u64().unwrap() - 3600);
    }));
    page(&prove(&stage, &stage.browser(), session, &jean).await, StatusCode::BAD_GATEWAY);
    stage.provider.0.lock().lie = None;
    let only = json!({ "auth": { "session": session } });
    let still = stage.home.call(&token, "DELETE", &path, only).await;
    assert_eq!(still.status, StatusCode::UNAUTHORIZED);
    // A suspended user proves nothing either.
    let user = ruma::owned_user_id!("@jean-x.fr:a.test");
    stage.home.accounts.update_user(&user, |user| user.suspended = true).await.unwrap();
    page(&prove(&stage, &stage.browser(), session, &jean).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_made_up_confirms_nothing() {
    let stage = Stage::of_agents().await;
    let browser = stage.browser();
    page(&browser.get(&fallback(&json!("made-up"))).await, StatusCode::BAD_REQUEST);
    let approve = "/_matrix/client/unstable/chappe/oidc/approve";
    for body in ["", "ticket=", "ticket=made-up", "ticket=%ff", "ticket=a&ticket=b", "other=1"] {
        let request =
            http::Request::post(approve).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        page(&browser.send(request, body.to_owned()).await, StatusCode::BAD_REQUEST);
    }
    // A cookie is no ticket.
    browser.depart(super::CLIENT).await;
    let cookie = browser.cookies.lock().values().next().unwrap().clone();
    let request =
        http::Request::post(approve).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    page(&browser.send(request, format!("ticket={cookie}")).await, StatusCode::BAD_REQUEST);
    browser.get("/_matrix/client/v3/auth/m.login.sso/fallback/web").await.refused(400, "M_MISSING_PARAM");
    let other = browser.get("/_matrix/client/v3/auth/m.login.recaptcha/fallback/web?session=x").await;
    other.refused(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn passwords_are_asked_of_those_who_have_one() {
    let lines = "emails = \"trusted\"\nlink_by_email = true\n";
    let stage = Stage::with("[identity]\naddresses = \"any\"\n", lines).await;
    let bob = stage.home.user("bob").await;
    let path = format!("/devices/{}", bob.device);
    let flows = async || bob.call("DELETE", &path, json!({})).await.json["flows"].clone();
    let (password, sso) = (json!({ "stages": ["m.login.password"] }), json!({ "stages": ["m.login.sso"] }));
    assert_eq!(flows().await, json!([password]));
    let medium = ruma::thirdparty::Medium::Email;
    let id = ruma::owned_user_id!("@bob:a.test");
    stage.home.accounts.add_threepid(&id, &medium, "bob@x.fr", (1, None)).await.unwrap();
    stage.logged_in(&person("s", "bob@x.fr")).await;
    assert_eq!(flows().await, json!([password, sso]));
    let asked = bob.call("DELETE", &path, json!({})).await;
    let browser = stage.browser();
    let question = page(
        &prove(&stage, &browser, &asked.json["session"], &person("s", "bob@x.fr")).await,
        StatusCode::OK,
    );
    browser.press(&question).await;
    bob.call("DELETE", &path, json!({ "auth": { "session": asked.json["session"] } })).await.ok();
}
