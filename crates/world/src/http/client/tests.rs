//! The real client against servers on loopback.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, unbounded_channel},
    },
};

use super::Client;
use crate::{
    Destination, Dns, DnsError, Error, Http, Limits, Outbound, Repeatable, Request, Service, Steady, Tasks,
    World,
};

fn world() -> World {
    let allowed_ranges = vec!["127.0.0.0/8".parse().unwrap()];
    let outbound = Outbound { allowed_ranges, system_authorities: false, ..Outbound::default() };
    World::real(&outbound).unwrap()
}

/// Serves each answer of `answers` in turn on one port; gives the port.
async fn serve(answers: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = Arc::new(answers);
    #[expect(clippy::disallowed_methods, reason = "a test's server is outside the world")]
    tokio::spawn(async move {
        for answer in answers.iter() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
    });
    port
}

fn get(url: String, max_bytes: u64, redirects: u8) -> Request {
    Request {
        destination: Destination::Url { redirects },
        http: http::Request::get(url).body(Bytes::new()).unwrap(),
        limits: Limits { max_bytes, deadline: Duration::from_secs(30) },
    }
}

#[tokio::test]
async fn an_answer_is_read_and_a_long_one_refused() {
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello".to_vec();
    let endless = [&b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..], &[b'x'; 1000]].concat();
    let port = serve(vec![ok.clone(), ok, endless]).await;
    let world = world();
    let url = || format!("http://127.0.0.1:{port}/");
    assert_eq!(&world.send(get(url(), 10, 0)).await.unwrap().body()[..], b"hello");
    assert!(matches!(world.send(get(url(), 4, 0)).await, Err(Error::TooLong)));
    assert!(matches!(world.send(get(url(), 100, 0)).await, Err(Error::TooLong)));
}

#[tokio::test]
async fn a_wrong_length_is_no_answer() {
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\nconnection: close\r\n\r\nhello".to_vec();
    let twice = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 2\r\n\r\nhello".to_vec();
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\nhello".to_vec();
    let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\nhello".to_vec();
    let port = serve(vec![short, twice, text, huge]).await;
    let world = world();
    for what in ["short", "two", "a text", "a gigabyte"] {
        let answer = world.send(get(format!("http://127.0.0.1:{port}/"), 100, 0)).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn a_redirect_inside_is_refused_and_an_endless_one_ends() {
    let to = |url: &str| {
        format!("HTTP/1.1 302 Found\r\nlocation: {url}\r\nconnection: close\r\n\r\n").into_bytes()
    };
    let inner = serve(vec![to("http://10.0.0.1/secret")]).await;
    let world = world();
    let refused = world.send(get(format!("http://127.0.0.1:{inner}/"), 100, 3)).await;
    assert!(matches!(refused, Err(Error::Refused(host)) if host == "10.0.0.1"));
    let again = serve(vec![to("/again"); 3]).await;
    let endless = world.send(get(format!("http://127.0.0.1:{again}/"), 100, 2)).await;
    assert!(matches!(endless, Err(Error::Redirects)));
}

#[tokio::test]
async fn without_a_listed_range_loopback_is_refused() {
    let world = World::real(&Outbound { system_authorities: false, ..Outbound::default() }).unwrap();
    for url in
        ["http://127.0.0.1:1/", "http://localhost:1/", "http://2130706433:1/", "http://[::ffff:7f00:1]:1/"]
    {
        assert!(matches!(world.send(get(url.to_owned(), 1, 0)).await, Err(Error::Refused(_))), "{url}");
    }
}

#[tokio::test]
async fn a_kept_connection_does_not_hold_up_the_stop() {
    let kept = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "a test's server is outside the world")]
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4096];
        let _ = stream.read(&mut asked).await.unwrap();
        stream.write_all(&kept).await.unwrap();
        stream.read(&mut asked).await.unwrap()
    });
    let world = world();
    assert_eq!(
        &world.send(get(format!("http://127.0.0.1:{port}/"), 10, 0)).await.unwrap().body()[..],
        b"hello"
    );
    assert!(world.shut_down(Duration::from_secs(10)).await.is_empty());
    assert_eq!(server.await.unwrap(), 0, "the connection was closed by the world");
}

/// Answers with half of `hello` and the rest once it is told to, if it is asked for `/steady`, and else never.
async fn in_halves(go_on: Arc<Notify>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "a test's server is outside the world")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let go_on = Arc::clone(&go_on);
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let length = stream.read(&mut asked).await.unwrap();
                let half = vec![b'x'; 1 << 20];
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * half.len());
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&half).await.unwrap();
                if !asked[..length].starts_with(b"GET /steady") {
                    std::future::pending::<()>().await;
                }
                go_on.notified().await;
                stream.write_all(&half).await.unwrap();
            });
        }
    });
    port
}

#[tokio::test]
async fn an_answer_that_comes_steadily_may_take_longer_than_another() {
    let go_on = Arc::new(Notify::new());
    let port = in_halves(Arc::clone(&go_on)).await;
    let world = &world();
    let ask = |path: &str| {
        let limits = Limits { max_bytes: 4 << 20, deadline: Duration::from_secs(5) };
        Request { limits, ..get(format!("http://127.0.0.1:{port}/{path}"), 0, 0) }
    };
    let mut steady = ask("steady");
    steady.http.extensions_mut().insert(Steady);
    let other = async {
        let answer = world.send(ask("other")).await;
        go_on.notify_one();
        answer
    };
    let (steady, other) = tokio::join!(world.send(steady), other);
    assert_eq!(steady.unwrap().body().len(), 2 << 20);
    assert!(matches!(other, Err(Error::Timeout)), "{other:?}");
}

/// Answers the first request of each connection and leaves at the next; tells all that it was asked.
async fn forgetful() -> (u16, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, asked) = unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "a test's server is outside the world")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                for answer in [&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..], b""] {
                    let mut head = [0; 4096];
                    let length = stream.read(&mut head).await.unwrap();
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    if head.is_empty() || tell.send(head).is_err() {
                        return;
                    }
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_kept_connection_that_breaks_is_replaced_where_a_request_may_come_twice() {
    let (port, mut asked) = forgetful().await;
    let world = world();
    let ask = async |method: http::Method, repeatable: bool| {
        let mut request = get(format!("http://127.0.0.1:{port}/"), 10, 0);
        *request.http.method_mut() = method;
        if repeatable {
            request.http.extensions_mut().insert(Repeatable);
        }
        world.send(request).await
    };
    for method in [http::Method::GET, http::Method::GET] {
        assert_eq!(&ask(method, false).await.unwrap().body()[..], b"hello");
    }
    let once = ask(http::Method::POST, false).await;
    assert!(matches!(once, Err(Error::Broken(_))), "{once:?}");
    for _ in 0..2 {
        assert_eq!(&ask(http::Method::POST, true).await.unwrap().body()[..], b"hello");
    }
    for method in ["GET", "GET", "GET", "POST", "POST", "POST", "POST"] {
        let head = asked.recv().await.unwrap();
        assert!(head.starts_with(&format!("{method} /")), "{method}: {head}");
    }
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn whoever_is_asked_is_told_who_asks() {
    let (port, mut asked) = forgetful().await;
    let mut named = get(format!("http://127.0.0.1:{port}/"), 10, 0);
    named.http.headers_mut().insert("user-agent", "Other/1".parse().unwrap());
    for (request, agent) in
        [(get(format!("http://127.0.0.1:{port}/"), 10, 0), "Chappe/0"), (named, "Other/1")]
    {
        world().send(request).await.unwrap();
        let head = asked.recv().await.unwrap().to_ascii_lowercase();
        let line = format!("\r\nuser-agent: {}", agent.to_ascii_lowercase());
        assert_eq!(head.matches(&line).count(), 1, "{head}");
    }
}

#[tokio::test]
async fn what_a_stranger_names_is_never_inside_though_ranges_are_listed() {
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec();
    let port = serve(vec![ok]).await;
    let world = world();
    let url = format!("http://127.0.0.1:{port}/");
    // A connection of one's own that is kept does not open the way either.
    assert_eq!(world.send(get(url.clone(), 10, 0)).await.unwrap().status(), 200);
    let foreign = Request { destination: Destination::Foreign { redirects: 3 }, ..get(url, 10, 0) };
    assert!(matches!(world.send(foreign).await, Err(Error::Refused(host)) if host == "127.0.0.1"));
}

#[tokio::test]
async fn ranges_listed_for_a_purpose_open_nothing_else() {
    let moved = b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\nconnection: close\r\n\r\n".to_vec();
    let port = serve(vec![moved]).await;
    let nothing_listed = World::real(&Outbound { system_authorities: false, ..Outbound::default() }).unwrap();
    let web = |range: &str, host: &str| Request {
        destination: Destination::Web { ranges: [range.parse().unwrap()].into() },
        ..get(format!("http://{host}:{port}/"), 10, 0)
    };
    let answer = nothing_listed.send(web("127.0.0.1/32", "127.0.0.1")).await.unwrap();
    assert_eq!(answer.status(), 302, "a redirect is the caller's to judge");
    for (range, host) in [("127.0.0.1/32", "127.0.0.2"), ("10.0.0.0/8", "127.0.0.1")] {
        let refused = world().send(web(range, host)).await;
        assert!(
            matches!(refused, Err(Error::Refused(_))),
            "{range} {host}: what others may use does not count"
        );
    }
}

/// A resolver that knows some names, and does not answer for one, which it counts.
#[derive(Default)]
struct Names {
    silences: AtomicUsize,
}

#[async_trait]
impl Dns for Names {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let found = match host {
            "public.example" => vec!["1.1.1.1"],
            "inside.example" => vec!["10.0.0.1"],
            "both.example" => vec!["1.1.1.1", "fd00::1"],
            "listed.example" => vec!["127.0.0.9"],
            "silent.example" => {
                self.silences.fetch_add(1, SeqCst);
                std::future::pending().await
            }
            "busy.example" => return Err(DnsError::Busy),
            _ => return Err(DnsError::Failed(format!("{host} is unknown"))),
        };
        Ok(found.into_iter().map(|address| address.parse().unwrap()).collect())
    }

    async fn services(&self, _: &str) -> Result<Vec<Service>, DnsError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn the_proxy_is_not_asked_for_names_that_are_seen_to_lead_inside() {
    let proxy = serve(vec![b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_vec(); 5]).await;
    let outbound = Outbound {
        allowed_ranges: vec!["127.0.0.0/8".parse().unwrap()],
        proxy: Some(format!("http://127.0.0.1:{proxy}")),
        system_authorities: false,
        ..Outbound::default()
    };
    let names = Arc::new(Names::default());
    let client = Client::new(&outbound, Arc::clone(&names) as _, &Tasks::threaded()).unwrap();
    let ask = async |host: &str| {
        let asked = get(format!("http://{host}/"), 10, 0);
        client.stream(Request { destination: Destination::Peer { redirects: 0 }, ..asked }).await.map(drop)
    };
    for inside in ["inside.example", "both.example", "10.0.0.1", "a.localhost"] {
        assert!(matches!(ask(inside).await, Err(Error::Refused(host)) if host == inside), "{inside}");
    }
    for outside in ["public.example", "listed.example", "unknown.example", "silent.example"] {
        let said = ask(outside).await;
        assert!(matches!(&said, Err(Error::Unreachable(why)) if why.contains("403")), "{outside}: {said:?}");
    }
    ask("silent.example").await.unwrap_err();
    assert_eq!(names.silences.load(SeqCst), 1, "who does not know a name is not asked for it again at once");
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_now_is_not_missing() {
    let outbound = Outbound { system_authorities: false, ..Outbound::default() };
    let client = Client::new(&outbound, Arc::new(Names::default()), &Tasks::threaded()).unwrap();
    let asked = client.stream(get("http://busy.example/".to_owned(), 10, 0)).await;
    assert!(matches!(asked, Err(Error::Busy)));
}
