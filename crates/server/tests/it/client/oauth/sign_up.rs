//! New accounts on the pages: by the rules of the client API.

use serde_json::{Value, json};

use super::{BASE, Browser, Client, PASSWORD, home, home_with, parameter};
use crate::client::home::Home;

const CREATE: &[(&str, &str)] = &[("prompt", "create")];

async fn metadata(home: &Home) -> Value {
    home.call("", "GET", "/_matrix/client/v1/auth_metadata", Value::Null).await.ok()
}

#[tokio::test]
async fn somebody_gets_an_account_and_lets_the_client_in() {
    let home = home().await;
    assert_eq!(metadata(&home).await["prompt_values_supported"], json!(["create"]));
    home.user("taken").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let page = browser.get(&client.address(CREATE)).await;
    let fill = |name: &'static str, password: &'static str, again: &'static str| {
        [("name", name), ("password", password), ("again", again)]
    };
    for (filled, said) in [
        (fill("taken", PASSWORD, PASSWORD), "is taken"),
        (fill("not possible", PASSWORD, PASSWORD), "not possible"),
        (fill("new", "short", "short"), "too weak"),
        (fill("new", PASSWORD, "another long one"), "not the same"),
    ] {
        let refused = browser.submit(&page, "/sign_up", &filled).await;
        assert_eq!(refused.status, 403);
        assert!(refused.html().contains(said), "{said}: {}", refused.html());
    }
    let onward = browser.submit(&page, "/sign_up", &fill("new", PASSWORD, PASSWORD)).await.location();
    let consent = browser.get(&onward).await;
    assert!(consent.html().contains("@new:a.test"), "{}", consent.html());
    let back = browser.submit(&consent, "/authorize", &[("decision", "allow")]).await.location();
    client.token_for(&parameter(&back, "code"), &[]).await.ok();
}

#[tokio::test]
async fn a_token_is_asked_for_where_one_signs_up_with_a_token() {
    let home = Home::with_registration("token = true", "oauth.enabled = true").await;
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    home.accounts.create_registration_token(Some("HELLO".to_owned()), Some(1), None).await.unwrap();
    let page = browser.get(&client.address(CREATE)).await;
    let fill = |name: &'static str, token: &'static str| {
        [("name", name), ("password", PASSWORD), ("again", PASSWORD), ("token", token)]
    };
    for token in ["", "WRONG"] {
        let refused = browser.submit(&page, "/sign_up", &fill("new", token)).await;
        assert_eq!(refused.status, 403, "{}", refused.html());
    }
    browser.submit(&page, "/sign_up", &fill("new", "HELLO")).await.location();
    let mut other = Browser::new(&home);
    let page = other.get(&client.address(CREATE)).await;
    assert_eq!(other.submit(&page, "/sign_up", &fill("second", "HELLO")).await.status, 403, "used up");
}

#[tokio::test]
async fn where_nobody_signs_up_nothing_says_so() {
    let home = Home::with_registration("", "oauth.enabled = true").await;
    assert!(metadata(&home).await.get("prompt_values_supported").is_none());
    let client = Client::new(&home).await;
    let mut browser = Browser::new(&home);
    let page = browser.get(&client.address(CREATE)).await;
    assert!(page.html().contains("/login\"") && !page.html().contains("sign_up"), "{}", page.html());
    let proof = super::hidden(&page.html(), "/login").into_iter().find(|(name, _)| name == "csrf").unwrap().1;
    let fields =
        [("csrf", &*proof), ("to", "account"), ("name", "eve"), ("password", PASSWORD), ("again", PASSWORD)];
    let refused = browser.post("/sign_up", &fields).await;
    assert_eq!(refused.status, 403, "{}", refused.html());
    assert!(home.accounts.user(&ruma::owned_user_id!("@eve:a.test")).await.unwrap().is_none());
}

#[tokio::test]
async fn new_accounts_are_counted_as_those_of_the_client_api() {
    let home = home_with("client.rates.registration = { per_second = 0.0001, burst = 2 }").await;
    home.user("one").await;
    let mut browser = Browser::new(&home);
    let page = browser.get(&format!("{BASE}/sign_up?to=account")).await;
    let fill = |name: &'static str| [("name", name), ("password", PASSWORD), ("again", PASSWORD)];
    browser.submit(&page, "/sign_up", &fill("two")).await.location();
    let page = browser.get(&format!("{BASE}/sign_up?to=account")).await;
    assert_eq!(browser.submit(&page, "/sign_up", &fill("three")).await.status, 429);
    let mut nobody = Browser::new(&home);
    let without = [("to", "account"), ("name", "four"), ("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(nobody.post("/sign_up", &without).await.status, 403, "a form of another browser");
}
