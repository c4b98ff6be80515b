//! Clients that mean harm, over real sockets.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::lab::Lab;

#[expect(clippy::disallowed_methods, reason = "a test's client is outside the world")]
async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Reads until the server hangs up; what came.
async fn end_of(stream: &mut TcpStream) -> String {
    let mut came = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut came)).await;
    assert!(read.is_ok(), "the server keeps the connection");
    String::from_utf8_lossy(&came).into_owned()
}

#[tokio::test]
async fn a_client_that_asks_nothing_loses_its_connection() {
    let lab = Lab::start("[process]\nheader_timeout_seconds = 1").await;
    let address = lab.server.addresses()[0];
    for said in [&b""[..], b"P", b"PRI * HT", b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\nA"] {
        let mut stream = connect(address).await;
        stream.write_all(said).await.unwrap();
        end_of(&mut stream).await;
    }
    // HTTP/2, greeted and then silent.
    let mut stream = connect(address).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    end_of(&mut stream).await;
    lab.stop().await;
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let lab = Lab::start("[process]\nmax_connections_per_address = 2").await;
    let address = lab.server.addresses()[0];
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(address).await;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        kept.push(stream);
    }
    let mut third = connect(address).await;
    assert_eq!(end_of(&mut third).await, "");
    drop(kept);
    lab.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_a_body_that_is_too_long_or_does_not_come() {
    let lab = Lab::start("[http]\nbody_timeout_s = 1").await;
    let address = lab.server.addresses()[0];
    let ask = async |method: &str, path: &str, length: u64| {
        let mut stream = connect(address).await;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(Duration::from_secs(20), stream.read_exact(&mut status)).await.unwrap().unwrap();
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    let login = "/_matrix/client/v3/login";
    assert_eq!(ask("POST", login, 1 << 30).await, "413");
    assert_eq!(ask("PUT", "/_matrix/federation/v1/send/1", 1 << 30).await, "401", "before anything is read");
    assert_eq!(ask("POST", login, 100).await, "408");
    lab.stop().await;
}
