//! Pages of OAuth, to which people without a password log in by the provider.

use http::{Request, StatusCode, header};
use serde_json::{Value, json};

use super::{Browser, Stage, attribute, location, person, provider::Person};
use crate::client::{
    home::Answer,
    oauth::{BASE, Client, encoded, hidden, parameter},
};

async fn stage() -> Stage {
    let trusting = "emails = \"trusted\"\nlink_by_email = true\n";
    Stage::with("[oauth]\nenabled = true\n[identity]\nprofile = \"agents\"\naddresses = \"any\"\n", trusting)
        .await
}

fn html(answer: &Answer) -> String {
    String::from_utf8(answer.bytes.clone()).unwrap()
}

#[track_caller]
fn onward(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", html(answer));
    answer.headers[header::LOCATION].to_str().unwrap().to_owned()
}

/// Follows the link to the provider and comes back as somebody, as far as the page that takes the browser in.
async fn back(stage: &Stage, browser: &Browser<'_>, page: &str, who: &Person) -> String {
    let there = onward(&browser.get(&attribute(page, "<a class=\"button\" href=\"")).await);
    let callback = stage.provider.log_in(&there, who);
    location(&browser.get(&callback).await)
}

/// Sends the form of a page, with what a person fills in.
async fn submit(browser: &Browser<'_>, page: &str, action: &str, filled: &[(&str, &str)]) -> Answer {
    let mut fields = hidden(page, action);
    fields.extend(filled.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let request = Request::post(format!("{BASE}{action}"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    browser.send(request, encoded(&fields)).await
}

/// Opens a page as somebody who logs in for it by the provider.
async fn open(stage: &Stage, browser: &Browser<'_>, path: &str, who: &Person) -> String {
    let page = html(&browser.get(path).await);
    let done = back(stage, browser, &page, who).await;
    html(&browser.get(&onward(&browser.get(&done).await)).await)
}

#[tokio::test]
async fn somebody_without_a_password_lets_a_client_in() {
    let stage = stage().await;
    let metadata = stage.home.call("", "GET", "/_matrix/client/v1/auth_metadata", Value::Null).await.ok();
    assert_eq!(metadata["prompt_values_supported"], json!(["create"]));
    let client = Client::new(&stage.home).await;
    let (browser, jean) = (stage.browser(), person("s", "jean@x.fr"));
    let consent = open(&stage, &browser, &client.address(&[]), &jean).await;
    assert!(consent.contains("@jean-x.fr:a.test"), "{consent}");
    let code = onward(&submit(&browser, &consent, "/authorize", &[("decision", "allow")]).await);
    let tokens = client.token_for(&parameter(&code, "code"), &[]).await.ok();
    let token = tokens["access_token"].as_str().unwrap();
    let who = stage.home.call(token, "GET", "/account/whoami", Value::Null).await.ok();
    assert_eq!(who["user_id"], "@jean-x.fr:a.test");
    // Whoever creates an account is sent there for that.
    let page = html(&stage.browser().get(&client.address(&[("prompt", "create")])).await);
    assert!(page.contains("Create an account with ProConnect"), "{page}");
}

#[tokio::test]
async fn what_is_grave_is_proved_by_the_provider_for_a_while() {
    let stage = stage().await;
    let (jean, eve) = (person("s", "jean@x.fr"), person("e", "eve@x.fr"));
    stage.logged_in(&eve).await;
    let closing = format!("{BASE}/account?action=org.matrix.account_deactivate");
    let browser = stage.browser();
    let page = open(&stage, &browser, &closing, &jean).await;
    assert!(page.contains("Confirm with ProConnect") && !page.contains("type=\"password\""), "{page}");
    let close = [("do", "deactivate")];
    let overview = html(&browser.get(&format!("{BASE}/account")).await);
    assert!(!overview.contains("Current password"), "{overview}");
    let csrf = hidden(&overview, "/logout").into_iter().find(|(name, _)| name == "csrf").unwrap().1;
    let unproved = encoded(&[("csrf", &csrf), close[0]]);
    let request = Request::post(format!("{BASE}/account"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    assert_eq!(browser.send(request, unproved).await.status, StatusCode::FORBIDDEN);

    let there = onward(&browser.get(&attribute(&page, "<a class=\"button\" href=\"")).await);
    assert!(there.contains("prompt=login"), "{there}");
    let other = browser.get(&stage.provider.log_in(&there, &eve)).await;
    assert_eq!(other.status, StatusCode::FORBIDDEN, "somebody else proves nothing");

    let done = back(&stage, &browser, &page, &jean).await;
    let proved = html(&browser.get(&onward(&browser.get(&done).await)).await);
    assert!(!proved.contains("type=\"password\""), "{proved}");
    let closed = submit(&browser, &proved, "/account", &[]).await;
    assert_eq!(closed.status, StatusCode::OK, "{}", html(&closed));
    let user = stage.home.accounts.user(&ruma::owned_user_id!("@jean-x.fr:a.test")).await.unwrap().unwrap();
    assert!(user.deactivated.is_some());
}

#[tokio::test]
async fn a_pass_is_of_one_browser_and_used_once() {
    let stage = stage().await;
    let (browser, jean) = (stage.browser(), person("s", "jean@x.fr"));
    let path = format!("{BASE}/account");
    let page = html(&browser.get(&path).await);
    let done = back(&stage, &browser, &page, &jean).await;
    let elsewhere = stage.browser().get(&done).await;
    assert_eq!(elsewhere.status, StatusCode::FORBIDDEN, "the address alone is worth nothing");
    let kept = browser.cookies.lock().clone();
    onward(&browser.get(&done).await);
    *browser.cookies.lock() = kept;
    assert_eq!(browser.get(&done).await.status, StatusCode::FORBIDDEN);
    for hostile in ["to=https://evil.example", "to=authorize&query=a%0Ab", ""] {
        let answer = browser.get(&format!("{BASE}/sso?{hostile}&for=log_in&provider=proconnect")).await;
        let to_provider = |answer: &Answer| onward(answer).starts_with("https://id.test/");
        assert!(answer.status.is_client_error() || to_provider(&answer), "{hostile}");
    }
    assert_eq!(
        browser.get(&format!("{BASE}/sso?to=account&for=log_in&provider=x")).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn whoever_is_locked_does_not_come_in_by_the_provider() {
    let stage = stage().await;
    let (browser, jean) = (stage.browser(), person("s", "jean@x.fr"));
    let path = format!("{BASE}/account");
    let overview = open(&stage, &browser, &path, &jean).await;
    assert!(overview.contains("@jean-x.fr:a.test"), "{overview}");
    let user = ruma::owned_user_id!("@jean-x.fr:a.test");
    stage.home.accounts.update_user(&user, |user| user.locked = true).await.unwrap();
    assert!(html(&browser.get(&path).await).contains("name=\"password\""), "logged out");
    let page = html(&browser.get(&path).await);
    let there = onward(&browser.get(&attribute(&page, "<a class=\"button\" href=\"")).await);
    let refused = browser.get(&stage.provider.log_in(&there, &jean)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}
