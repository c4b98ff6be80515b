//! Previews of web pages.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use super::home::Home;

const ON: &str = "media.previews = { enabled = true, denied_hosts = [\"denied.test\"] }";

/// A picture of one pixel.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\x00\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

const PAGE: &str = "<html><head><title>T</title><meta property='og:title' content='Le pont'>\
                    <meta property='og:image' content='/p.gif'></head></html>";

/// Opens the site `web.test`; counts how often it is asked.
fn site(home: &Home) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let answer = move |request: http::Request<Full<Bytes>>| {
        counted.fetch_add(1, Relaxed);
        let (status, kind, body) = match request.uri().path() {
            "/" | "/other" => (200, "text/html", Bytes::from(PAGE)),
            "/p.gif" => (200, "image/gif", Bytes::from_static(GIF)),
            _ => (404, "text/html", Bytes::new()),
        };
        let answer =
            http::Response::builder().status(status).header("content-type", kind).body(Full::new(body));
        std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
    };
    home.net.route("web.test", &home.world, tower::service_fn(answer));
    asked
}

fn ask(place: &str, url: &str) -> String {
    let url: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
    format!("/_matrix/{place}/preview_url?url={url}")
}

const NOW: &str = "client/v1/media";

#[tokio::test]
async fn a_page_is_shown_to_those_who_are_logged_in() {
    let home = Home::with(ON).await;
    let asked = site(&home);
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let said = alice.get(&format!("{}&ts=1510610716656", ask(NOW, "https://web.test/#part"))).await.ok();
    let place = said["og:image"].as_str().unwrap().strip_prefix("mxc://a.test/").unwrap();
    assert_eq!(
        said,
        json!({
            "og:title": "Le pont", "og:image": format!("mxc://a.test/{place}"), "og:image:type": "image/gif",
            "og:image:width": 1, "og:image:height": 1, "matrix:image:size": GIF.len(),
        })
    );
    for old in ["media/v3", "media/r0", "client/unstable/org.matrix.msc3916/media"] {
        assert_eq!(bob.get(&ask(old, "https://web.test/")).await.ok(), said, "{old}");
    }
    assert_eq!(asked.load(Relaxed), 2, "the page and its picture, once for all");
    let picture = bob.get(&format!("/_matrix/client/v1/media/download/a.test/{place}")).await;
    assert_eq!((&*picture.bytes, &picture.headers["content-type"]), (GIF, &"image/gif".parse().unwrap()));
}

#[tokio::test]
async fn strangers_guests_and_bad_addresses_are_refused() {
    let home = Home::with(ON).await;
    let asked = site(&home);
    let alice = home.user("alice").await;
    let guest = home.call("", "POST", "/register?kind=guest", json!({})).await.ok();
    let guest = guest["access_token"].as_str().unwrap();
    for place in [NOW, "media/v3"] {
        let good = ask(place, "https://web.test/");
        home.call("", "GET", &good, Value::Null).await.refused(401, "M_MISSING_TOKEN");
        home.call("nonsense", "GET", &good, Value::Null).await.refused(401, "M_UNKNOWN_TOKEN");
        home.call(guest, "GET", &good, Value::Null).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        let path = format!("/_matrix/{place}/preview_url");
        alice.get(&path).await.refused(400, "M_MISSING_PARAM");
        for bad in ["", "web.test", "ftp://web.test/", "file:///etc/passwd", "https://me:secret@web.test/"] {
            alice.get(&ask(place, bad)).await.refused(400, "M_INVALID_PARAM");
        }
        for denied in ["https://denied.test/", "https://web.test:8448/", "http://web.test:22/"] {
            alice.get(&ask(place, denied)).await.refused(403, "M_FORBIDDEN");
        }
        for gone in ["https://web.test/none", "https://nowhere.test/"] {
            alice.get(&ask(place, gone)).await.refused(502, "M_UNKNOWN");
        }
    }
    assert_eq!(asked.load(Relaxed), 1, "the page that is not there, and not at once again");
}

#[tokio::test]
async fn what_has_to_be_fetched_is_counted() {
    let rate = "client.rates.preview = { per_second = 0.0001, burst = 1 }";
    let home = Home::with(&format!("{ON}\n{rate}")).await;
    site(&home);
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.get(&ask(NOW, "https://web.test/")).await.ok();
    alice.get(&ask(NOW, "https://web.test/")).await.ok();
    alice.get(&ask(NOW, "https://web.test/other")).await.refused(429, "M_LIMIT_EXCEEDED");
    bob.get(&ask(NOW, "https://web.test/other")).await.ok();
    alice.get(&ask(NOW, "https://web.test/other")).await.ok();
}

#[tokio::test]
async fn unless_it_is_switched_on_there_is_no_such_thing() {
    let home = Home::new().await;
    let asked = site(&home);
    let alice = home.user("alice").await;
    for place in [NOW, "media/v3"] {
        alice.get(&ask(place, "https://web.test/")).await.refused(404, "M_UNRECOGNIZED");
    }
    assert_eq!(asked.load(Relaxed), 0);
}
