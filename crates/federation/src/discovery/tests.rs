//! The steps of discovery, one name each.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use chappe_world::{Fake, FakeNet, Fate, Service};
use http_body_util::Full;

use super::*;

const PAGE: &str = "/.well-known/matrix/server";

fn page(net: &FakeNet, host: &str, status: u16, body: &'static str) {
    cached_page(net, host, (status, ""), body);
}

/// A page that says how long it may be kept.
fn cached_page(net: &FakeNet, host: &str, (status, cached): (u16, &'static str), body: &'static str) {
    let world = World::fake(Fake::new(host, 9, net));
    let answer = tower::service_fn(move |request: http::Request<Full<Bytes>>| async move {
        let status = if request.uri().path() == PAGE { status } else { 404 };
        let answer = http::Response::builder().status(status).header(http::header::CACHE_CONTROL, cached);
        let answer = answer.body(Full::new(Bytes::from_static(body.as_bytes())));
        Ok::<_, std::convert::Infallible>(answer.unwrap())
    });
    net.route(host, &world, answer);
}

fn discovery(net: &FakeNet) -> Discovery {
    Discovery::new(World::fake(Fake::new("us.example", 1, net)), &Config::default())
}

fn service(target: &str, port: u16) -> Service {
    Service { priority: 1, weight: 1, target: target.to_owned(), port }
}

async fn found(discovery: &Discovery, name: &str) -> (String, u16, String, String) {
    let target = discovery.target(&OwnedServerName::try_from(name).unwrap()).await.unwrap();
    let host = target.hosts[0].clone();
    (host.connect, host.port, host.tls_name, host.header)
}

/// The steps of the specification, one name each.
#[tokio::test(start_paused = true)]
async fn every_step_of_the_specification() {
    let net = FakeNet::new();
    page(&net, "wk-literal.example", 200, r#"{"m.server":"[::1]:7"}"#);
    page(&net, "wk-port.example", 200, r#"{"m.server":"matrix.wk.example:443"}"#);
    page(&net, "wk-srv.example", 200, r#"{"m.server":"matrix.srv.example"}"#);
    page(&net, "wk-plain.example", 200, r#"{"m.server":"matrix.plain.example"}"#);
    page(&net, "wk-broken.example", 200, r#"{"m.server":"not a name"}"#);
    page(&net, "wk-absent.example", 404, "{}");
    net.set_services("_matrix-fed._tcp.matrix.srv.example", vec![service("s1.example", 9001)]);
    net.set_services("_matrix-fed._tcp.srv.example", vec![service("s2.example", 9002)]);
    net.set_services("_matrix._tcp.old-srv.example", vec![service("s3.example", 9003)]);
    let discovery = discovery(&net);
    for (name, connect, port, tls_name, header) in [
        ("1.2.3.4", "1.2.3.4", 8448, "1.2.3.4", "1.2.3.4"),
        ("1.2.3.4:5", "1.2.3.4", 5, "1.2.3.4", "1.2.3.4:5"),
        ("[::1]:5", "::1", 5, "::1", "[::1]:5"),
        ("wk-port.example:99", "wk-port.example", 99, "wk-port.example", "wk-port.example:99"),
        ("wk-literal.example", "::1", 7, "::1", "[::1]:7"),
        ("wk-port.example", "matrix.wk.example", 443, "matrix.wk.example", "matrix.wk.example:443"),
        ("wk-srv.example", "s1.example", 9001, "matrix.srv.example", "matrix.srv.example"),
        ("wk-plain.example", "matrix.plain.example", 8448, "matrix.plain.example", "matrix.plain.example"),
        ("wk-broken.example", "wk-broken.example", 8448, "wk-broken.example", "wk-broken.example"),
        ("wk-absent.example", "wk-absent.example", 8448, "wk-absent.example", "wk-absent.example"),
        ("srv.example", "s2.example", 9002, "srv.example", "srv.example"),
        ("old-srv.example", "s3.example", 9003, "old-srv.example", "old-srv.example"),
        ("Plain.Example", "plain.example", 8448, "plain.example", "plain.example"),
    ] {
        let expected = (connect.to_owned(), port, tls_name.to_owned(), header.to_owned());
        assert_eq!(found(&discovery, name).await, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_cannot_be_reached_are_refused_before_anything_is_asked() {
    let discovery = discovery(&FakeNet::new());
    for name in ["a.example.", "a..example", "127.1", "a.example:0"] {
        let Ok(name) = OwnedServerName::try_from(name) else { continue };
        assert!(discovery.target(&name).await.is_err(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delegation_outlives_a_short_outage_and_ends_with_a_long_one() {
    let net = FakeNet::new();
    page(&net, "d.example", 200, r#"{"m.server":"matrix.d.example:443"}"#);
    let discovery = discovery(&net);
    assert_eq!(found(&discovery, "d.example").await.0, "matrix.d.example");
    net.unroute("d.example");
    tokio::time::advance(Duration::from_hours(25)).await;
    assert_eq!(found(&discovery, "d.example").await.0, "matrix.d.example");
    for _ in 0..4 {
        tokio::time::advance(Duration::from_hours(2)).await;
        found(&discovery, "d.example").await;
    }
    assert_eq!(found(&discovery, "d.example").await.0, "d.example");
}

#[tokio::test(start_paused = true)]
async fn a_page_is_asked_for_as_often_as_it_says_within_bounds() {
    const MINUTE: u64 = 60;
    let good = r#"{"m.server":"matrix.d.example:443"}"#;
    for (status, cached, body, (every, times), asked) in [
        (200, "max-age=1", good, (MINUTE, 60), 13),
        (200, "no-store", good, (MINUTE, 60), 13),
        (200, "max-age=864000", good, (60 * MINUTE, 100), 3),
        (200, "", good, (60 * MINUTE, 100), 5),
        // After 10, 20, 40 minutes, then every hour.
        (404, "max-age=864000", "{}", (MINUTE, 240), 6),
        (200, "max-age=864000", r#"{"m.server":7}"#, (MINUTE, 240), 6),
        // After half a minute, 1, 2, 4, 8 minutes, then every ten.
        (503, "", "", (MINUTE, 240), 28),
    ] {
        let net = FakeNet::new();
        cached_page(&net, "d.example", (status, cached), body);
        let (discovery, count) = (discovery(&net), crate::tests::count(&net, PAGE));
        for _ in 0..=times {
            found(&discovery, "d.example").await;
            tokio::time::advance(Duration::from_secs(every)).await;
        }
        assert_eq!(count.load(SeqCst), asked, "{status} {cached} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delegation_ends_with_its_page_and_not_with_a_failure_of_it() {
    for (status, body, kept) in [
        (404, "", false),
        (410, "", false),
        (200, "<html>", false),
        (200, r#"{"m.server":"not a name"}"#, false),
        (429, "", true),
        (502, "<html>", true),
    ] {
        let net = FakeNet::new();
        page(&net, "d.example", 200, r#"{"m.server":"matrix.d.example:443"}"#);
        let discovery = discovery(&net);
        assert_eq!(found(&discovery, "d.example").await.0, "matrix.d.example");
        page(&net, "d.example", status, body);
        tokio::time::advance(Duration::from_hours(25)).await;
        let expected = if kept { "matrix.d.example" } else { "d.example" };
        assert_eq!(found(&discovery, "d.example").await.0, expected, "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_may_be_where_a_page_says_that_could_not_be_had() {
    for (status, expected) in [(503, "matrix.d.example"), (404, "d.example")] {
        let net = FakeNet::new();
        page(&net, "d.example", status, "");
        let (discovery, name) = (discovery(&net), ruma::server_name!("d.example"));
        for _ in 0..5 {
            found(&discovery, "d.example").await;
            tokio::time::advance(Duration::from_mins(10)).await;
        }
        assert_eq!(found(&discovery, "d.example").await.0, "d.example");
        tokio::time::sleep(Duration::from_secs(1)).await;
        page(&net, "d.example", 200, r#"{"m.server":"matrix.d.example:443"}"#);
        discovery.forget(name);
        assert_eq!(found(&discovery, "d.example").await.0, "d.example", "it was asked for a moment ago");
        tokio::time::advance(Duration::from_secs(31)).await;
        discovery.forget(name);
        assert_eq!(found(&discovery, "d.example").await.0, expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_not_there_is_looked_for_where_its_page_says_once_it_can_be_had() {
    let net = FakeNet::new();
    page(&net, "d.example", 503, "");
    let discovery = discovery(&net);
    assert_eq!(found(&discovery, "d.example").await.0, "d.example");
    discovery.forget(ruma::server_name!("d.example"));
    page(&net, "d.example", 200, r#"{"m.server":"matrix.d.example:443"}"#);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(found(&discovery, "d.example").await.0, "matrix.d.example");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_again_for_a_page_that_could_not_be_had() {
    let net = FakeNet::new();
    page(&net, "d.example", 200, r#"{"m.server":"matrix.d.example:443"}"#);
    let lost = Arc::new(Mutex::new(0));
    let losing = lost.clone();
    net.judge(move |_, _, _| {
        *losing.lock() += 1;
        Fate::Lose
    });
    let discovery = discovery(&net);
    let took = async || {
        let begun = Instant::now();
        let connect = found(&discovery, "d.example").await.0;
        (connect, begun.elapsed().as_secs())
    };
    let nowhere_else = |seconds: u64| ("d.example".to_owned(), seconds);
    let together = tokio::join!(took(), took());
    assert_eq!((together, *lost.lock()), ((nowhere_else(10), nowhere_else(10)), 1), "one look-up for both");
    tokio::time::sleep(Duration::from_secs(30)).await;
    for _ in 0..2 {
        assert_eq!(took().await, nowhere_else(0), "the server is where it was");
    }
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(*lost.lock(), 2, "the page is asked for by itself");
    discovery.forget(ruma::server_name!("d.example"));
    assert_eq!(took().await, nowhere_else(3), "as it was not there");
    assert_eq!(*lost.lock(), 3);
    net.judge(|_, _, _| Fate::Deliver);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(took().await, nowhere_else(0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(took().await, ("matrix.d.example".to_owned(), 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_page_says_is_remembered_though_nobody_waited_for_it() {
    let net = FakeNet::new();
    page(&net, "d.example", 200, r#"{"m.server":"matrix.d.example:443"}"#);
    net.judge(|_, _, _| Fate::Delay(Duration::from_secs(5)));
    let discovery = discovery(&net);
    let given_up = tokio::time::timeout(Duration::from_secs(1), found(&discovery, "d.example")).await;
    assert!(given_up.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    net.judge(|_, _, _| Fate::Unreachable);
    assert_eq!(found(&discovery, "d.example").await.0, "matrix.d.example");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_had_is_asked_for_less_often_though_its_server_is_away() {
    let net = FakeNet::new();
    page(&net, "d.example", 503, "");
    let (discovery, count) = (discovery(&net), crate::tests::count(&net, PAGE));
    for _ in 0..6 {
        found(&discovery, "d.example").await;
        tokio::time::advance(Duration::from_secs(31)).await;
        discovery.forget(ruma::server_name!("d.example"));
    }
    for _ in 0..9 {
        found(&discovery, "d.example").await;
        tokio::time::advance(Duration::from_mins(1)).await;
    }
    assert_eq!(count.load(SeqCst), 7);
}

#[tokio::test(start_paused = true)]
async fn services_are_tried_by_priority_and_get_their_share() {
    let net = FakeNet::new();
    let record = |priority, weight, target: &str| Service { priority, weight, ..service(target, 8448) };
    let records =
        [record(20, 9, "spare.example"), record(10, 100, "light.example"), record(10, 300, "heavy.example")];
    net.set_services("_matrix-fed._tcp.srv.example", records.to_vec());
    let mut heavy = 0;
    for seed in 0..400 {
        let discovery = Discovery::new(World::fake(Fake::new("us.example", seed, &net)), &Config::default());
        let hosts = discovery.target(ruma::server_name!("srv.example")).await.unwrap().hosts;
        let names: Vec<&str> = hosts.iter().map(|host| host.connect.as_str()).collect();
        match names[..] {
            ["heavy.example", "light.example", "spare.example"] => heavy += 1,
            ["light.example", "heavy.example", "spare.example"] => {}
            _ => panic!("{names:?}"),
        }
    }
    assert!((260..340).contains(&heavy), "{heavy} of 400");
}

#[tokio::test(start_paused = true)]
async fn an_endless_page_is_no_delegation() {
    let net = FakeNet::new();
    let long: &'static str =
        Box::leak(format!("{{\"m.server\":\"x.example\"{}}}", " ".repeat(60_000)).into_boxed_str());
    page(&net, "long.example", 200, long);
    assert_eq!(found(&discovery(&net), "long.example").await.0, "long.example");
}

#[test]
fn a_mutated_page_delegates_to_a_host_or_to_nobody() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (net, page) = (FakeNet::new(), Arc::new(Mutex::new(Bytes::new())));
    let served = Arc::clone(&page);
    let answer = tower::service_fn(move |_: http::Request<Full<Bytes>>| {
        let body = served.lock().clone();
        async move { Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(body))) }
    });
    net.route("wk.example", &World::fake(Fake::new("wk.example", 9, &net)), answer);
    chappe_fuzz::Fuzz::of(env!("CARGO_MANIFEST_DIR"), "well-known").run(|bytes| {
        *page.lock() = Bytes::copy_from_slice(bytes);
        let target = runtime.block_on(discovery(&net).target(ruma::server_name!("wk.example")));
        match target {
            Ok(target) => {
                for host in &target.hosts {
                    assert!(names::strict(&host.header).is_some(), "{host:?}");
                }
                let hosts: Vec<&str> = target.hosts.iter().map(|host| &*host.header).collect();
                hosts.join(" ")
            }
            Err(error) => error.to_string(),
        }
    });
}

#[tokio::test(start_paused = true)]
async fn delegations_and_services_that_lead_back_end() {
    let net = FakeNet::new();
    page(&net, "one.example", 200, r#"{"m.server":"two.example"}"#);
    page(&net, "two.example", 200, r#"{"m.server":"one.example"}"#);
    page(&net, "self.example", 200, r#"{"m.server":"self.example"}"#);
    page(&net, "inside.example", 200, r#"{"m.server":"10.0.0.1:80"}"#);
    net.set_services("_matrix-fed._tcp.two.example", vec![service("one.example", 1)]);
    net.set_services("_matrix-fed._tcp.one.example", vec![service("two.example", 2)]);
    let discovery = discovery(&net);
    for (name, connect) in [
        ("one.example", "one.example"),
        ("two.example", "two.example"),
        ("self.example", "self.example"),
        // Whether it may be connected to is the guard's to say, at the moment of connecting.
        ("inside.example", "10.0.0.1"),
    ] {
        assert_eq!(found(&discovery, name).await.0, connect, "{name}");
    }
}
