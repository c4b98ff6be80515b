//! Mail over a real connection to a small mail sink on loopback, in plain text and under TLS.
#![expect(clippy::unwrap_used, reason = "a test that goes wrong should stop at once")]

use std::sync::Arc;

use chappe_identity::{Mail, MailConfig, MailError, MailSecrets, Mailer, Security, Smtp};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// Everything one client said, as lines; ends with the connection.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin) -> Vec<String> {
    let mut stream = BufReader::new(stream);
    let mut said = Vec::new();
    let mut in_data = false;
    stream.write_all(b"220 sink\r\n").await.unwrap();
    stream.flush().await.unwrap();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return said;
        }
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        let answer = match (in_data, line.as_str()) {
            (true, ".") => {
                in_data = false;
                "250 kept\r\n"
            }
            (true, _) => "",
            (false, "DATA") => {
                in_data = true;
                "354 go on\r\n"
            }
            (false, "QUIT") => "221 bye\r\n",
            (false, _) => "250 ok\r\n",
        };
        said.push(line);
        if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return said;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own server")]
async fn sink(tls: Option<TlsAcceptor>) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match tls {
            None => converse(stream).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => converse(stream).await,
                Err(_) => vec!["no handshake".to_owned()],
            },
        }
    });
    (port, task)
}

fn config(port: u16, security: Security) -> MailConfig {
    MailConfig {
        host: "localhost".to_owned(),
        port: Some(port),
        security,
        username: None,
        password_file: None,
        from: "Chappé <no-reply@chappe.example>".to_owned(),
        certificate_authority: None,
        timeout_seconds: 60,
        templates: None,
    }
}

fn mail() -> Mail {
    Mail {
        to: "o'neil+a@gouv.fr".parse().unwrap(),
        subject: "Vérifiez".to_owned(),
        text: "Bonjour\n.\nhttps://x/?a=b&c=d\n".to_owned(),
        html: "<p>Bonjour</p>".to_owned(),
        sent_at: 1_780_000_000_000,
        id: "abc".to_owned(),
    }
}

#[tokio::test]
async fn a_mail_arrives_whole() {
    let (port, task) = sink(None).await;
    let smtp = Smtp::new(&config(port, Security::Plain), MailSecrets::default()).unwrap();
    smtp.send(mail()).await.unwrap();
    drop(smtp);
    let said = task.await.unwrap();
    assert!(said.contains(&"MAIL FROM:<no-reply@chappe.example>".to_owned()), "{said:#?}");
    assert!(said.contains(&"RCPT TO:<o'neil+a@gouv.fr>".to_owned()));
    assert_eq!(said.iter().filter(|line| line.starts_with("RCPT")).count(), 1);
    assert!(said.contains(&"Message-ID: <abc@chappe.example>".to_owned()));
    assert!(said.iter().any(|line| line.starts_with("Date: Thu, 28 May 2026 20:26:40")));
    assert!(said.iter().any(|line| line.contains("multipart/alternative")));
}

#[tokio::test]
async fn headers_cannot_be_injected() {
    let (port, _task) = sink(None).await;
    let smtp = Smtp::new(&config(port, Security::Plain), MailSecrets::default()).unwrap();
    let wrong = Mail { subject: "a\r\nBcc: evil@x.fr".to_owned(), ..mail() };
    assert!(matches!(smtp.send(wrong).await, Err(MailError::Unwritable(_))));
    let wrong = Mail { id: "a>\r\nBcc: <evil".to_owned(), ..mail() };
    assert!(matches!(smtp.send(wrong).await, Err(MailError::Unwritable(_))));
    let from = MailConfig { from: "a\r\nBcc: b@x.fr".to_owned(), ..config(port, Security::Plain) };
    assert!(Smtp::new(&from, MailSecrets::default()).is_err());
}

#[tokio::test]
async fn certificates_are_checked() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let acceptor = || {
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(server))
    };
    let (port, task) = sink(Some(acceptor())).await;
    let smtp = Smtp::new(&config(port, Security::Tls), MailSecrets::default()).unwrap();
    assert!(matches!(smtp.send(mail()).await, Err(MailError::Relay(_))));
    assert_eq!(task.await.unwrap(), ["no handshake"]);

    let (port, task) = sink(Some(acceptor())).await;
    let authority = MailSecrets { password: None, certificate_authority: Some(cert.pem().into_bytes()) };
    let smtp = Smtp::new(&config(port, Security::Tls), authority).unwrap();
    smtp.send(mail()).await.unwrap();
    assert!(task.await.unwrap().contains(&"DATA".to_owned()));
}

#[tokio::test]
async fn a_relay_without_starttls_gets_nothing() {
    let (port, task) = sink(None).await;
    let smtp = Smtp::new(&config(port, Security::Starttls), MailSecrets::default()).unwrap();
    assert!(matches!(smtp.send(mail()).await, Err(MailError::Relay(_))));
    assert!(!task.await.unwrap().iter().any(|line| line.starts_with("MAIL")));
}
