//! Uploads, downloads, thumbnails.

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};

use super::home::{Answer, Home, User};

pub(super) async fn upload(user: &User<'_>, kind: &str, name: &str, bytes: &[u8]) -> Answer {
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

/// A GIF of two frames, red and blue, of `side` pixels each way.
fn moving(side: u16) -> Vec<u8> {
    let [low, high] = side.to_le_bytes();
    let mut gif = [b"GIF89a".as_slice(), &[low, high, low, high, 0x80, 0, 0, 255, 0, 0, 0, 0, 255]].concat();
    for colour in [0, 1] {
        gif.extend([0x21, 0xf9, 4, 0, 20, 0, 0, 0, 0x2c, 0, 0, 0, 0, low, high, low, high, 0, 2]);
        // One colour after the other in three bits each, with a clear code (4) before each: as long as it can be, and as plain.
        let codes = (0..usize::from(side).pow(2)).flat_map(|_| [4, colour]).chain([5]);
        let bits: Vec<u8> = codes.flat_map(|code| (0..3).map(move |bit| code >> bit & 1)).collect();
        let bytes: Vec<u8> =
            bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit)).collect();
        for block in bytes.chunks(255) {
            gif.push(u8::try_from(block.len()).unwrap());
            gif.extend(block);
        }
        gif.push(0);
    }
    gif.push(0x3b);
    gif
}

#[tokio::test]
async fn thumbnails_move_for_those_who_want_it() {
    let home = Home::with("media = { serve_without_login = true }").await;
    let alice = home.user("alice").await;
    let uri = upload(&alice, "image/gif", "a.gif", &moving(120)).await.ok()["content_uri"].clone();
    let ask = path(&uri).replace("/download/", "/thumbnail/") + "?width=32&height=32&method=crop";
    let old = ask.replace("client/v1/media", "media/v3");
    for ask in [&ask, &old] {
        let got = alice.get(&format!("{ask}&animated=true")).await;
        assert_eq!(
            (got.status.as_u16(), &got.headers["content-type"]),
            (200, &"image/webp".parse().unwrap())
        );
        assert!(got.bytes.windows(4).filter(|name| name == b"ANMF").count() == 2);
        let disposition = got.headers["content-disposition"].to_str().unwrap();
        assert!(disposition.starts_with("inline"), "{disposition}");
        for still in ["", "&animated=false"] {
            let got = alice.get(&format!("{ask}{still}")).await;
            assert_eq!(got.headers["content-type"], "image/png", "{still}");
            assert!(!got.bytes.windows(4).any(|name| name == b"acTL"));
        }
    }
    alice.get(&format!("{ask}&animated=perhaps")).await.refused(400, "M_INVALID_PARAM");
    home.call("", "GET", &format!("{ask}&animated=true"), Value::Null).await.refused(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn without_login_there_is_what_came_before_the_freeze() {
    // The clock of the test begins at 1780000000000.
    for (since, status) in [(1_700_000_000_000_u64, 404), (1_900_000_000_000, 200)] {
        let media = format!("media = {{ serve_without_login = true, frozen_since = {since} }}");
        let home = Home::with(&media).await;
        let alice = home.user("alice").await;
        let uri = upload(&alice, "text/plain", "x", b"hello").await.ok()["content_uri"].clone();
        let old = path(&uri).replace("client/v1/media", "media/v3");
        for ask in [old.clone(), format!("{old}/name.txt"), old.replace("/v3/", "/r0/")] {
            let got = home.call("", "GET", &ask, Value::Null).await;
            assert_eq!(got.status.as_u16(), status, "{ask}");
        }
        assert_eq!(alice.get(&path(&uri)).await.bytes, b"hello");
        let remote = "/_matrix/media/v3/download/b.test/x";
        home.call("", "GET", remote, Value::Null).await.refused(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn who_is_not_logged_in_has_nothing_fetched_unless_allowed() {
    let remote = "/_matrix/media/v3/download/b.test/x";
    let home = Home::with("media = { serve_without_login = true }").await;
    home.call("", "GET", remote, Value::Null).await.refused(404, "M_NOT_FOUND");
    // Nobody may be talked to here: what is told apart is whether it was tried.
    let rates = "client.rates.remote_media = { per_second = 0.0001, burst = 1 }";
    let media = "media = { serve_without_login = true, fetch_without_login = true }";
    let home = Home::with(&format!("{rates}\n{media}")).await;
    let only_here = format!("{remote}?allow_remote=false");
    home.call("", "GET", &only_here, Value::Null).await.refused(404, "M_NOT_FOUND");
    home.call("", "GET", remote, Value::Null).await.refused(502, "M_UNKNOWN");
    home.call("", "GET", remote, Value::Null).await.refused(429, "M_LIMIT_EXCEEDED");
}
