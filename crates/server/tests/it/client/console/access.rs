//! Who may call: administrators, at exactly the paths there are.

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use super::{Home, at};
use crate::client::table::filled;

#[tokio::test]
async fn every_endpoint_is_for_administrators_alone() {
    let home = Home::new().await;
    let bob = home.user("bob").await;
    let table = chappe_admin::routes();
    assert!(table.table().len() > 80, "{}", table.table().len());
    for route in table.table() {
        let path = filled(&route.path);
        assert!(["/_synapse/admin/v", "/_chappe/admin/v"].iter().any(|top| path.starts_with(top)), "{path}");
        home.call("", &route.method, &path, Value::Null).await.refused(401, "M_MISSING_TOKEN");
        home.call("nonsense", &route.method, &path, Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
        // Refused before the body is looked at.
        bob.call(&route.method, &path, json!("nonsense")).await.refused(403, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn a_suspended_or_locked_administrator_does_nothing() {
    let home = Home::new().await;
    let (root, admin) = (home.administrator("root").await, home.administrator("admin1").await);
    let bob = home.user("bob").await;
    root.put(&at(&format!("/v1/suspend/{}", admin.id)), json!({ "suspend": true })).await.ok();
    admin.get(&at("/v2/users")).await.ok();
    admin.post(&at(&format!("/v1/deactivate/{}", bob.id)), json!({})).await.refused(403, "M_USER_SUSPENDED");
    root.put(&at(&format!("/v2/users/{}", admin.id)), json!({ "locked": true })).await.ok();
    admin.get(&at("/v2/users")).await.refused(401, "M_USER_LOCKED");
    bob.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn odd_paths_lead_nowhere() {
    let home = Home::new().await;
    let admin = home.administrator("admin1").await;
    admin.get(&at("/v1/server_version")).await.ok();
    for path in [
        "/_synapse//admin/v1/server_version",
        "/_synapse/admin//v1/server_version",
        "/_synapse/admin/v1/server_version/",
        "/_synapse/admin/v1/server_version/more",
        "/_synapse/admin/v1/x/../server_version",
        "/_synapse/admin/v1/%2e%2e/v1/server_version",
        "/_synapse/admin/%76%31/server_version",
        "/_synapse/Admin/v1/server_version",
        "/_synapse/admin/v1/server_version%2f",
        "/_matrix/client/../../_synapse/admin/v1/server_version",
        "/_synapse/admin/v1/users/@bob:a.test/inserted/devices",
        "/_synapse/admin/v1/users/@bob:a.test/shadow_ban",
        "/_synapse/admin",
        "/_synapse/admin/v4/users",
    ] {
        for token in ["", &*admin.token] {
            home.call(token, "GET", path, Value::Null).await.refused(404, "M_UNRECOGNIZED");
        }
    }
}

#[tokio::test]
async fn a_method_is_what_it_says() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let path = at(&format!("/v2/users/{}", bob.id));
    let overridden = Request::get(&path)
        .header(header::AUTHORIZATION, format!("Bearer {}", admin.token))
        .header("X-HTTP-Method-Override", "PUT")
        .body(Body::from(r#"{"admin":true}"#));
    assert_eq!(home.send(overridden.unwrap()).await.ok()["admin"], false);
    assert_eq!(home.call("", "HEAD", &path, Value::Null).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bob.call("HEAD", &path, Value::Null).await.status, StatusCode::FORBIDDEN);
    let preflight = home.call("", Method::OPTIONS.as_str(), &path, Value::Null).await;
    assert_eq!((preflight.status, preflight.bytes.len()), (StatusCode::NO_CONTENT, 0));
    admin.call("PATCH", &path, json!({})).await.refused(405, "M_UNRECOGNIZED");
    // A token in the address is none.
    let in_query = format!("{path}?access_token={}", admin.token);
    home.call("", "GET", &in_query, Value::Null).await.refused(401, "M_MISSING_TOKEN");
}
