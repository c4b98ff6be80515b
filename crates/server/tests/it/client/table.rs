//! Every endpoint of the table: those that answer without an access token are the ones listed, and no others.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Request, StatusCode};

use super::home::Home;

const LISTED: &str = include_str!("../../../../client-api/no-auth.txt");

/// A path with something harmless for each parameter.
pub(super) fn filled(path: &str) -> String {
    let part = |segment: &str| match segment {
        "{room_id}" | "{room_id_or_alias}" => "!r:a.test".to_owned(),
        "{event_id}" => "$e".to_owned(),
        "{user_id}" => "@nobody:a.test".to_owned(),
        "{room_alias}" => "%23x:a.test".to_owned(),
        "{server_name}" => "a.test".to_owned(),
        "{kind}" => "override".to_owned(),
        other if other.starts_with('{') => "x".to_owned(),
        other => other.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn only_listed_endpoints_answer_without_a_token() {
    let home = Home::new().await;
    let (client, media) = (chappe_client_api::routes(), chappe_client_api::media_routes());
    let mut open = BTreeSet::new();
    for route in client.table().iter().chain(media.table()) {
        let request = Request::builder().method(&*route.method).uri(filled(&route.path));
        let answer = home.send(request.body(Body::empty()).unwrap()).await;
        let asked_for_token =
            answer.status == StatusCode::UNAUTHORIZED && answer.json["errcode"] == "M_MISSING_TOKEN";
        if !asked_for_token {
            open.insert(format!("{} {}", route.method, route.path));
        }
    }
    let listed: BTreeSet<String> =
        LISTED.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let more: Vec<_> = open.difference(&listed).collect();
    let less: Vec<_> = listed.difference(&open).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "not listed: {more:#?}\nlisted, but closed or gone: {less:#?}"
    );
}

/// Endpoints that read no JSON: pages for browsers, and what ends the session of everything that follows.
fn reads_json(path: &str) -> bool {
    !path.contains("/unstable/chappe/") && !path.ends_with("/logout") && !path.ends_with("/logout/all")
}

#[tokio::test]
async fn a_bad_body_is_the_clients_mistake_everywhere() {
    let home = Home::new().await;
    let client = chappe_client_api::routes();
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let mut wrong = Vec::new();
    for (n, body) in ["{", "[]", "\"text\"", "{\"a\": 1} and more", &deep, "\u{0}"].iter().enumerate() {
        let user = home.user(&format!("user{n}")).await;
        let takes_body = |method: &str| method == "POST" || method == "PUT";
        for route in
            client.table().iter().filter(|route| takes_body(&route.method) && reads_json(&route.path))
        {
            let request = Request::builder()
                .method(&*route.method)
                .uri(filled(&route.path))
                .header("authorization", format!("Bearer {}", user.token));
            let answer = home.send(request.body(Body::from((*body).to_owned())).unwrap()).await;
            let refused = answer.status.is_client_error() && answer.json["errcode"].is_string();
            if !refused || answer.json["errcode"] == "M_UNKNOWN_TOKEN" {
                let (method, path) = (&route.method, &route.path);
                wrong.push(format!("{method} {path} with {body:.20}: {} {}", answer.status, answer.json));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn what_nobody_answers_is_unrecognized() {
    let home = Home::new().await;
    for (method, path, status) in [
        ("GET", "/_matrix/client/v3/nothing", 404),
        ("GET", "/_matrix/client/v3/rooms/!r:a.test/finalSync", 404),
        ("PATCH", "/_matrix/client/v3/login", 405),
        ("GET", "/_matrix/client/v3/login/", 404),
        ("GET", "/_matrix//client/v3/login", 404),
        ("GET", "/_matrix/client/v3/x/../login", 404),
    ] {
        home.call("", method, path, serde_json::Value::Null).await.refused(status, "M_UNRECOGNIZED");
    }
}
