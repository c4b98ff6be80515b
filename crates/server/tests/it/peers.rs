//! Servers that mean harm, over real sockets: what they answer, and where they lead.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use axum::Router;
use chappe_kv::{Db, Memory};
use chappe_server::{House, config::Api};
use chappe_world::{Dns, DnsError, Outbound, Service, World};
use http::header;
use parking_lot::Mutex;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tokio_rustls::TlsAcceptor;

use crate::host::{self, Answer};

/// A server with TLS that answers every request with the same bytes.
struct Peer {
    port: u16,
    certificate: PathBuf,
    answer: Arc<Mutex<Vec<u8>>>,
    /// The paths that it was asked for.
    asked: UnboundedReceiver<String>,
    _folder: TempDir,
}

impl Peer {
    #[expect(clippy::disallowed_methods, reason = "a test's own server")]
    async fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("peer.pem");
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(Vec::new()));
        let ((paths, asked), said) = (unbounded_channel(), Arc::clone(&answer));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let Some(path) = head(&mut tls).await else { continue };
                let _ = paths.send(path);
                let said = said.lock().clone();
                let _ = tls.write_all(&said).await;
                let _ = tls.shutdown().await;
            }
        });
        Self { port, certificate, answer, asked, _folder: folder }
    }

    /// From now on it says this, with the right length unless the head tells another.
    fn answers(&self, head: &str, body: &str) {
        let told = head.contains("content-length") || head.contains("transfer-encoding");
        let length = if told { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        *self.answer.lock() = format!("HTTP/1.1 {head}\r\n{length}\r\n{body}").into_bytes();
    }
}

/// Reads the head of a request; gives what is asked for.
async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8_lossy(&head).split(' ').nth(1).map(str::to_owned)
}

/// Whatever has arrived until now.
fn all(receiver: &mut UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

/// A server whose way to others is the real one.
struct Us {
    _house: House,
    router: Router,
    token: String,
    _folder: TempDir,
}

impl Us {
    async fn start(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = host::configuration("us.test", folder.path(), "");
        let (house, router) = host::build(&text, world, &Db::new(Memory::default()), &[Api::Client]).await;
        let token = host::sign_up(&router, "alice").await["access_token"].as_str().unwrap().to_owned();
        Self { _house: house, router, token, _folder: folder }
    }

    async fn ask(&self, method: &str, path: &str, body: serde_json::Value) -> Answer {
        host::call(&self.router, &self.token, (method, path), body).await
    }

    async fn join(&self, server: &str) -> Answer {
        self.ask("POST", &format!("/join/!r:{server}?server_name={server}"), json!({})).await
    }
}

#[tokio::test]
async fn nothing_of_what_a_hostile_server_answers_reaches_a_client() {
    let mut peer = Peer::start("127.0.0.1").await;
    let outbound = Outbound {
        allowed_ranges: vec!["127.0.0.0/8".parse().unwrap()],
        certificate_authorities: vec![peer.certificate.clone()],
        system_authorities: false,
        ..Outbound::default()
    };
    let us = Us::start(&World::real(&outbound).unwrap()).await;
    let server = format!("127.0.0.1:{}", peer.port);
    let token_error = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"harm","soft_logout":true}"#;
    let limit = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"harm","retry_after_ms":86400000}"#;
    let html = "<html>harm</html>";
    for (head, body) in [
        ("401 Unauthorized\r\nwww-authenticate: harm", token_error),
        ("403 Forbidden\r\nset-cookie: harm=1", token_error),
        ("429 Too Many Requests\r\nretry-after: 86400", limit),
        ("200 OK\r\ncontent-type: text/html", html),
        ("200 OK\r\ncontent-type: application/json", r#""harm""#),
        ("502 Bad Gateway\r\ncontent-type: text/html", html),
        ("302 Found\r\nlocation: /_matrix/federation/v1/harm", ""),
        ("200 OK\r\ncontent-length: 999", r#"{"harm":1}"#),
        ("200 OK\r\ncontent-length: 10\r\ncontent-length: 2", r#"{"harm":1}"#),
        ("200 OK\r\ntransfer-encoding: chunked", "999\r\nharm"),
    ] {
        peer.answers(head, body);
        us.join(&server).await.harmless(head).refused(502, "M_UNKNOWN");
        let asked = all(&mut peer.asked);
        assert!(asked.iter().any(|path| path.contains("/make_join/")), "{head}: {asked:?}");
        for path in [
            format!("/directory/room/#x:{server}"),
            format!("/profile/@x:{server}"),
            format!("/publicRooms?server={server}"),
        ] {
            let answer = us.ask("GET", &path, json!(null)).await.harmless(head);
            assert!([404, 502].contains(&answer.status.as_u16()), "{head}: {path}: {}", answer.text);
        }
        let devices = json!({ "device_keys": { format!("@x:{server}"): [] } });
        us.ask("POST", "/keys/query", devices).await.harmless(head).ok();
        all(&mut peer.asked);
    }
    us.ask("GET", "/account/whoami", json!(null)).await.ok();
}

impl Answer {
    /// Itself, with nothing in it that the peer said.
    fn harmless(self, case: &str) -> Self {
        for trace in ["harm", "soft_logout", "retry_after_ms", "M_UNKNOWN_TOKEN", "M_LIMIT_EXCEEDED"] {
            assert!(!self.text.contains(trace), "{case}: {}", self.text);
        }
        for name in [header::WWW_AUTHENTICATE, header::SET_COOKIE, header::RETRY_AFTER, header::LOCATION] {
            assert!(!self.headers.contains_key(&name), "{case}: {name}");
        }
        self
    }
}

/// A resolver that knows one name, which leads inside, and one record, which leads there.
struct Names(u16);

#[async_trait]
impl Dns for Names {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        match host {
            "inside.test" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            _ => Err(DnsError::Failed(format!("{host} is unknown"))),
        }
    }

    async fn services(&self, name: &str) -> Result<Vec<Service>, DnsError> {
        let service = Service { priority: 1, weight: 1, target: "inside.test".to_owned(), port: self.0 };
        Ok(if name == "_matrix-fed._tcp.record.test" { vec![service] } else { Vec::new() })
    }
}

/// A place inside; says when somebody connects.
#[expect(clippy::disallowed_methods, reason = "a test's own server")]
async fn inside() -> (u16, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (visits, visited) = unbounded_channel();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            let _ = visits.send("somebody".to_owned());
        }
    });
    (port, visited)
}

/// A proxy that leads everything to one port; says what was asked for.
#[expect(clippy::disallowed_methods, reason = "a test's own proxy")]
async fn proxy(to: u16) -> (u16, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (places, asked) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let Some(place) = head(&mut client).await else { continue };
            let _ = places.send(place);
            let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_record_that_leads_inside_is_not_followed_unless_that_is_listed() {
    let (port, mut visited) = inside().await;
    for (ranges, followed) in [(vec![], false), (vec!["127.0.0.1/32".parse().unwrap()], true)] {
        let outbound = Outbound { allowed_ranges: ranges, system_authorities: false, ..Outbound::default() };
        let us = Us::start(&World::named(&outbound, Arc::new(Names(port))).unwrap()).await;
        us.join("record.test").await.refused(502, "M_UNKNOWN");
        assert_eq!(!all(&mut visited).is_empty(), followed);
    }
}

#[tokio::test]
async fn a_page_that_leads_inside_is_not_followed_unless_that_is_listed() {
    let (port, mut visited) = inside().await;
    let peer = Peer::start("page.test").await;
    let (proxy, mut asked) = proxy(peer.port).await;
    let listed = vec!["127.0.0.1/32".parse().unwrap()];
    for (ranges, place, followed) in [
        (vec![], "inside.test", false),
        (vec![], "127.0.0.1", false),
        (listed.clone(), "inside.test", true),
        (listed, "127.0.0.1", true),
    ] {
        let outbound = Outbound {
            allowed_ranges: ranges,
            certificate_authorities: vec![peer.certificate.clone()],
            system_authorities: false,
            proxy: Some(format!("http://127.0.0.1:{proxy}")),
            ..Outbound::default()
        };
        let place = format!("{place}:{port}");
        let page = format!(r#"{{"m.server":"{place}"}}"#);
        let moved = format!("302 Found\r\nlocation: https://{place}/");
        for (head, body) in [("200 OK", page.as_str()), (moved.as_str(), "")] {
            peer.answers(head, body);
            // A new server each time: pages are remembered.
            let us = Us::start(&World::named(&outbound, Arc::new(Names(port))).unwrap()).await;
            us.join("page.test").await.refused(502, "M_UNKNOWN");
            let asked = all(&mut asked);
            assert_eq!(asked.contains(&place), followed, "{head}: {asked:?}");
        }
        assert!(all(&mut visited).is_empty(), "through the proxy or not at all");
    }
}
