//! A listener with TLS of its own, beside a plain one.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
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
    lab.server.reload();
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
