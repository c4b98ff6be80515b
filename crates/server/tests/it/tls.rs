//! A listener with TLS of its own, beside a plain one.

use std::sync::Arc;

use bytes::Bytes;
use chappe_world::{ClientCertificate, Destination, Error, Host, Limits, Outbound, Request as Asked, World};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::lab::Lab;

#[tokio::test]
async fn http_2_over_tls_and_a_new_certificate_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["hs1.example".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    };
    let first = renew();
    let more = format!(
        "[[listeners]]\nport = 0\napis = [\"health\"]\ntls = {{ certificate = \"{}\", key = \"{}\" }}",
        certificate.display(),
        key.display()
    );
    let lab = Lab::start(&more).await;
    let port = lab.server.addresses()[1].port();
    assert_eq!(visit(port, &first).await.unwrap(), "ok\n");
    let second = renew();
    assert!(visit(port, &second).await.is_err());
    lab.server.reload().await;
    assert_eq!(visit(port, &second).await.unwrap(), "ok\n");
    lab.stop().await;
}

/// `/health` over HTTP/2, trusting exactly `root`.
#[expect(clippy::disallowed_methods, reason = "a test's own client")]
async fn visit(port: u16, root: &CertificateDer<'static>) -> anyhow::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("hs1.example")?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get("https://hs1.example/health").body(Empty::<Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok(String::from_utf8(body.to_vec())?)
}

/// A certificate that vouches for itself, in files.
fn files(folder: &std::path::Path, name: &str) -> ClientCertificate {
    let at = |end: &str| folder.join(format!("{name}.{end}"));
    let made = rcgen::generate_simple_self_signed(vec![format!("{name}.example")]).unwrap();
    std::fs::write(at("pem"), made.cert.pem()).unwrap();
    std::fs::write(at("key"), made.signing_key.serialize_pem()).unwrap();
    ClientCertificate { certificate: at("pem"), key: at("key") }
}

/// Has a world ask the other server `hs1.example`, reached at `connect`, whether it is well.
async fn ask(outbound: &Outbound, connect: &str, port: u16) -> Result<String, Error> {
    let world = World::real(outbound).unwrap();
    let (tls_name, header) = ("hs1.example".to_owned(), "hs1.example".to_owned());
    let host = Host { connect: connect.to_owned(), port, tls_name, header };
    let asked = Asked {
        destination: Destination::Host(host),
        http: Request::get("/health").body(Bytes::new()).unwrap(),
        limits: Limits::default(),
    };
    let answer = world.send(asked).await.map(|answer| String::from_utf8_lossy(answer.body()).into_owned());
    world.shut_down(std::time::Duration::from_secs(5)).await;
    answer
}

#[tokio::test]
async fn who_has_no_certificate_of_the_members_is_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let [server, member, stranger] = ["hs1", "member", "stranger"].map(|name| files(folder.path(), name));
    let more = format!(
        "[[listeners]]\nport = 0\napis = [\"health\"]\n\
         tls = {{ certificate = {:?}, key = {:?}, client_authorities = {:?} }}",
        server.certificate, server.key, member.certificate
    );
    let lab = Lab::start(&more).await;
    let port = lab.server.addresses()[1].port();
    let with = |certificate: Option<&ClientCertificate>| Outbound {
        allowed_ranges: vec!["127.0.0.0/8".parse().unwrap()],
        certificate_authorities: vec![server.certificate.clone()],
        system_authorities: false,
        client_certificate: certificate.cloned(),
        ..Outbound::default()
    };
    assert_eq!(ask(&with(Some(&member)), "127.0.0.1", port).await.unwrap(), "ok\n");
    assert!(ask(&with(Some(&stranger)), "127.0.0.1", port).await.is_err());
    assert!(ask(&with(None), "127.0.0.1", port).await.is_err());
    let missing = ClientCertificate { key: folder.path().join("none"), ..member };
    assert!(World::real(&with(Some(&missing))).unwrap_err().to_string().contains("none"));
    lab.stop().await;
}

/// A proxy that leads every name to this machine; says which were asked for.
#[expect(clippy::disallowed_methods, reason = "a test's own proxy")]
async fn proxy() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (names, asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let authority = head.split(' ').nth(1).unwrap().to_owned();
            let (name, port) = authority.rsplit_once(':').unwrap();
            if names.send(format!("{} {name}", head.split(' ').next().unwrap())).is_err() {
                return;
            }
            if name == "refused.example" {
                client.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                continue;
            }
            let mut server = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn other_servers_are_reached_through_the_proxy_which_is_not_asked_for_what_is_inside() {
    let folder = tempfile::tempdir().unwrap();
    let server = files(folder.path(), "hs1");
    let tls = format!("tls = {{ certificate = {:?}, key = {:?} }}", server.certificate, server.key);
    let lab = Lab::start(&format!("[[listeners]]\nport = 0\napis = [\"health\"]\n{tls}")).await;
    let port = lab.server.addresses()[1].port();
    let (proxy, mut asked) = proxy().await;
    let outbound = Outbound {
        certificate_authorities: vec![server.certificate.clone()],
        system_authorities: false,
        proxy: Some(format!("http://127.0.0.1:{proxy}")),
        ..Outbound::default()
    };
    assert_eq!(ask(&outbound, "hs1.example", port).await.unwrap(), "ok\n");
    assert_eq!(asked.recv().await.unwrap(), "CONNECT hs1.example");
    assert!(matches!(ask(&outbound, "refused.example", port).await, Err(Error::Unreachable(_))));
    assert_eq!(asked.recv().await.unwrap(), "CONNECT refused.example");
    for inside in ["127.0.0.1", "10.0.0.1", "::1", "localhost"] {
        assert!(matches!(ask(&outbound, inside, port).await, Err(Error::Refused(_))), "{inside}");
    }
    assert!(asked.try_recv().is_err(), "the proxy was asked for what is inside");
    lab.stop().await;
}
