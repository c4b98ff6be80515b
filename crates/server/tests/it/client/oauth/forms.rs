//! Pages, cookies and forms against those who would use somebody else's browser, and against guessing.

use http::StatusCode;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn forms_are_taken_only_from_the_browser_they_were_shown_to() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::new(&home).await;
    let (mut alice, mut mallory) = (Browser::new(&home), Browser::new(&home));
    let asked = mallory.get(&client.address(&[])).await;
    let theirs = hidden(&asked.html(), "/login").into_iter().find(|(name, _)| name == "csrf").unwrap().1;
    let consent = alice.open(&client.address(&[]), "alice").await;
    let query =
        hidden(&consent.html(), "/authorize").into_iter().find(|(name, _)| name == "query").unwrap().1;
    for proof in ["", "x", &theirs] {
        for (path, fields) in [
            ("/authorize", vec![("query", query.as_str()), ("decision", "allow")]),
            ("/login", vec![("to", "account"), ("name", "alice"), ("password", PASSWORD)]),
            ("/logout", vec![("to", "account")]),
            ("/link", vec![("user_code", "BBBBBBBB"), ("decision", "allow")]),
            ("/account", vec![("do", "deactivate"), ("password", PASSWORD)]),
            (
                "/sign_up",
                vec![("to", "account"), ("name", "eve"), ("password", PASSWORD), ("again", PASSWORD)],
            ),
        ] {
            let mut fields = fields;
            fields.push(("csrf", proof));
            let refused = alice.post(path, &fields).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path} {proof}");
            assert!(!refused.headers.contains_key("location"));
        }
    }
    // A proof without its cookie is none.
    alice.cookie = None;
    let refused = alice.submit(&consent, "/authorize", &[("decision", "allow")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn pages_run_nothing_and_cannot_be_framed_or_kept() {
    let home = home().await;
    home.user("alice").await;
    let client = Client::with(&home, json!({ "client_name": "\"><script>alert(1)</script>" })).await;
    let mut browser = Browser::new(&home);
    let login = browser.get(&client.address(&[("login_hint", "\"><script>")])).await;
    let consent = browser.log_in(&login, "alice").await;
    assert!(consent.html().contains("&lt;script&gt;alert(1)"));
    let wrong = browser.get(&format!("{BASE}/authorize?client_id=%22%3E%3Cscript%3E")).await;
    let account = browser.get(&format!("{BASE}/account")).await;
    let link = browser.get(&format!("{BASE}/link?user_code=%22%3E%3Cscript%3E")).await;
    for page in [login, consent, wrong, account, link] {
        assert!(!page.html().contains("<script"), "{}", page.html());
        let header = |name: &str| page.headers[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        let starts = policy.starts_with("default-src 'none'; style-src 'self'; form-action 'self'");
        assert!(starts && policy.ends_with("frame-ancestors 'none'"), "{policy}");
        assert_eq!(
            (header("cache-control"), header("referrer-policy")),
            ("no-store".into(), "no-referrer".into())
        );
        assert_eq!(
            (header("x-frame-options"), header("x-content-type-options")),
            ("DENY".into(), "nosniff".into())
        );
    }
}

#[tokio::test]
async fn a_log_in_gets_a_cookie_that_nobody_knew_before() {
    let home = home().await;
    home.user("alice").await;
    let mut browser = Browser::new(&home);
    let asked = browser.get(&format!("{BASE}/account")).await;
    let before = browser.cookie.clone().unwrap();
    let inside = browser.log_in(&asked, "alice").await;
    assert!(inside.html().contains("Your sessions"));
    let after = browser.cookie.clone().unwrap();
    assert_ne!(before, after);
    let mut thief = Browser { home: &home, cookie: Some(before) };
    assert!(thief.get(&format!("{BASE}/account")).await.html().contains("name=\"password\""));
    // Logging out ends it here, not in the browser alone.
    browser.submit(&inside, "/logout", &[]).await.location();
    let mut thief = Browser { home: &home, cookie: Some(after) };
    assert!(thief.get(&format!("{BASE}/account")).await.html().contains("name=\"password\""));
}

#[tokio::test]
async fn a_log_in_leads_to_pages_of_this_server_alone() {
    let home = home().await;
    home.user("alice").await;
    let mut browser = Browser::new(&home);
    let asked = browser.get(&format!("{BASE}/account")).await;
    let proof = hidden(&asked.html(), "/login")[0].1.clone();
    for to in ["https://evil.org/", "//evil.org", "../../../../evil", "authorize/../../x", ""] {
        let fields = [("csrf", proof.as_str()), ("to", to), ("name", "alice"), ("password", PASSWORD)];
        let refused = browser.post("/login", &fields).await;
        assert_eq!(refused.status, 400, "{to}");
        assert!(!refused.headers.contains_key("location"));
    }
    let query = "//evil.org/\r\nSet-Cookie: x=y&a=b";
    let fields = [
        ("csrf", proof.as_str()),
        ("to", "account"),
        ("query", query),
        ("name", "alice"),
        ("password", PASSWORD),
    ];
    let onward = browser.post("/login", &fields).await.location();
    assert!(onward.starts_with(&format!("{BASE}/account?")) && !onward.contains(['\r', '\n']), "{onward}");
}

#[tokio::test]
async fn log_ins_on_pages_do_not_tell_who_exists() {
    let home = home().await;
    home.user("alice").await;
    let mut browser = Browser::new(&home);
    let asked = browser.get(&format!("{BASE}/account")).await;
    let mut answers = Vec::new();
    for name in ["alice", "@alice:a.test", "nobody", "@nobody:a.test", "a@b.fr", "@x:other.org", "é"] {
        let refused = browser.submit(&asked, "/login", &[("name", name), ("password", "wrong")]).await;
        assert_eq!(refused.status, 403, "{name}");
        answers.push(refused.html().replace(&format!("value=\"{name}\""), ""));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test]
async fn pages_and_the_client_api_count_log_ins_together() {
    let more = "client.rates.login_by_account = { per_second = 0.001, burst = 4 }";
    let home = home_with(more).await;
    home.user("alice").await;
    let mut browser = Browser::new(&home);
    let asked = browser.get(&format!("{BASE}/account")).await;
    let log_in = |name: &str| {
        json!({ "type": "m.login.password", "password": "wrong",
            "identifier": { "type": "m.id.user", "user": name } })
    };
    for name in ["alice", "nobody"] {
        for _ in 0..2 {
            let wrong = [("name", name), ("password", "wrong")];
            assert_eq!(browser.submit(&asked, "/login", &wrong).await.status, 403);
            home.call("", "POST", "/login", log_in(name)).await.refused(403, "M_FORBIDDEN");
        }
        let limited = browser.submit(&asked, "/login", &[("name", name), ("password", PASSWORD)]).await;
        assert_eq!(limited.status, 429, "{name}");
        assert!(limited.headers.contains_key("retry-after"));
        home.call("", "POST", "/login", log_in(name)).await.refused(429, "M_LIMIT_EXCEEDED");
    }
}

#[tokio::test]
async fn a_locked_account_is_locked_on_pages_too() {
    let home = home().await;
    let (admin, alice) = (home.administrator("admin").await, home.user("alice").await);
    let client = Client::new(&home).await;
    let tokens = client.session("alice", "PHONE").await;
    let mut browser = Browser::new(&home);
    let consent = browser
        .open(
            &client.address(&[("scope", "urn:matrix:client:api:* urn:matrix:client:device:OTHER")]),
            "alice",
        )
        .await;
    let lock = format!("/_matrix/client/v1/admin/lock/{}", alice.id);
    admin.put(&lock, json!({ "locked": true })).await.ok();
    let asked = browser.submit(&consent, "/authorize", &[("decision", "allow")]).await;
    assert!(asked.html().contains("name=\"password\""), "whoever is locked lets nobody in");
    client.refresh(&tokens.refresh).await.oauth_error(503, "temporarily_unavailable");
    let wrong = browser.submit(&asked, "/login", &[("name", "alice"), ("password", "wrong")]).await;
    assert!(!wrong.html().contains("locked"), "told only to those who know the password");
    let right = browser.submit(&asked, "/login", &[("name", "alice"), ("password", PASSWORD)]).await;
    assert!(right.status == 403 && right.html().contains("locked"), "{}", right.html());
    admin.put(&lock, json!({ "locked": false })).await.ok();
    Tokens::of(client.refresh(&tokens.refresh).await);
    let who = home.call(&tokens.access, "GET", "/account/whoami", Value::Null).await;
    assert_eq!(who.status, 200);
}
