//! Uploads, downloads, thumbnails.

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};

use super::home::{Answer, Home, User};

async fn upload(user: &User<'_>, kind: &str, name: &str, bytes: &[u8]) -> Answer {
    let request = Request::post(format!("/_matrix/media/v3/upload?filename={name}"))
        .header(header::AUTHORIZATION, format!("Bearer {}", user.token))
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(bytes.to_vec()));
    user.home.send(request.unwrap()).await
}

fn path(uri: &Value) -> String {
    let place = uri.as_str().unwrap().trim_start_matches("mxc://");
    format!("/_matrix/client/v1/media/download/{place}")
}

#[tokio::test]
async fn a_file_comes_back_to_those_who_are_logged_in() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    let uri = upload(&alice, "text/plain", "h%C3%A9.txt", b"hello").await.ok()["content_uri"].clone();
    let got = alice.get(&path(&uri)).await;
    assert_eq!(got.bytes, b"hello");
    assert_eq!(got.headers["content-type"], "text/plain");
    let disposition = got.headers["content-disposition"].to_str().unwrap();
    assert!(disposition.starts_with("inline; filename*=utf-8''h%C3%A9.txt"), "{disposition}");
    assert_eq!(got.headers["x-content-type-options"], "nosniff");
    assert!(
        got.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox; default-src 'none'")
    );
    home.call("", "GET", &path(&uri), Value::Null).await.refused(401, "M_MISSING_TOKEN");
    let old = path(&uri).replace("client/v1/media", "media/v3");
    home.call("", "GET", &old, Value::Null).await.refused(404, "M_NOT_FOUND");
    alice.get("/_matrix/client/v1/media/download/a.test/..%2F..%2Fx").await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn what_could_run_is_never_shown_in_place() {
    let home = Home::new().await;
    let alice = home.user("alice").await;
    for kind in
        ["text/html", "image/svg+xml", "TEXT/HTML; charset=utf-8", "application/xhtml+xml", "nonsense"]
    {
        let uri = upload(&alice, kind, "x%22%0d%0aSet-Cookie:a.html", b"<script>").await.ok()["content_uri"]
            .clone();
        let got = alice.get(&path(&uri)).await;
        let disposition = got.headers["content-disposition"].to_str().unwrap();
        assert!(disposition.starts_with("attachment"), "{kind}: {disposition}");
        assert!(!got.headers.contains_key("set-cookie"));
    }
}

#[tokio::test]
async fn limits_hold_and_addresses_can_be_made_ahead() {
    let home = Home::with("media = { max_upload_bytes = 10 }").await;
    let alice = home.user("alice").await;
    assert_eq!(alice.get("/_matrix/client/v1/media/config").await.ok(), json!({ "m.upload.size": 10 }));
    upload(&alice, "text/plain", "x", b"far too many bytes").await.refused(413, "M_TOO_LARGE");
    let made = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    let asked = format!("{}?timeout_ms=0", path(&made["content_uri"]));
    alice.get(&asked).await.refused(504, "M_NOT_YET_UPLOADED");
    let place = made["content_uri"].as_str().unwrap().trim_start_matches("mxc://");
    let put = format!("/_matrix/media/v3/upload/{place}");
    alice.put(&put, json!({ "a": 1 })).await.ok();
    alice.put(&put, json!({ "b": 2 })).await.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
    assert_eq!(alice.get(&path(&made["content_uri"])).await.ok(), json!({ "a": 1 }));
}
