//! A server on loopback with a mail sink, and a client for it.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use bytes::Bytes;
use chappe_kv::{Db, Memory};
use chappe_server::{Server, config, mail_sink};
use chappe_world::World;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};

/// Longest wait for anything but a stop in these tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for a stop: more than `process.shutdown_seconds`, after which the server itself waits no more.
pub(crate) const STOPPING: Duration = Duration::from_secs(40);

/// A running server with all it needs.
pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) folder: TempDir,
    mails: mpsc::Receiver<mail_sink::Received>,
    sink: JoinHandle<()>,
}

impl Lab {
    /// A server of the profile `agents` with registration by e-mail, and more lines of configuration.
    #[expect(clippy::disallowed_methods, reason = "a test's own mail sink")]
    pub(crate) async fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, mails) = mpsc::channel(16);
        let sink = tokio::spawn(mail_sink::receive(listener, sender));
        let text = configuration(folder.path(), port, more);
        let file = folder.path().join("chappe.toml");
        std::fs::write(&file, &text).unwrap();
        let config = config::load(Some(&file), std::iter::empty()).unwrap();
        let world = World::real(&config.outbound).unwrap();
        let server = Server::start(&config, world, Db::new(Memory::default())).await.unwrap();
        Self { server, folder, mails, sink }
    }

    /// The client of the first listener.
    pub(crate) fn http(&self) -> Http {
        Http::to(self.server.addresses()[0])
    }

    /// The next mail.
    pub(crate) async fn mail(&mut self) -> mail_sink::Received {
        timeout(PATIENCE, self.mails.recv()).await.expect("a mail in time").unwrap()
    }

    /// Whether a mail is there already.
    pub(crate) fn has_mail(&mut self) -> bool {
        self.mails.try_recv().is_ok()
    }

    /// Runs `chappe admin …` beside this process.
    pub(crate) async fn admin(&self, arguments: &[&str]) -> Result<String, String> {
        let config = self.folder.path().join("chappe.toml");
        let arguments: Vec<String> = ["--config", config.to_str().unwrap(), "admin"]
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).to_owned())
            .collect();
        chappe(arguments).await
    }

    /// Stops the server; gives the folder to start another one on.
    pub(crate) async fn stop(self) -> TempDir {
        timeout(STOPPING, self.server.stop()).await.expect("stopped in time");
        self.sink.abort();
        self.folder
    }
}

fn configuration(folder: &Path, mail_port: u16, more: &str) -> String {
    let data = folder.join("data");
    format!(
        r#"
server_name = "agent.example.gouv.fr"
data_dir = "{}"
public_baseurl = "http://matrix.example.gouv.fr"
[[listeners]]
port = 0
apis = ["client", "media", "federation", "identity", "admin", "metrics", "health"]
[log]
level = "warn"
[identity]
profile = "agents"
[mail]
host = "127.0.0.1"
port = {mail_port}
security = "plain"
from = "no-reply@example.gouv.fr"
[client.registration]
email = true
[accounts.password]
memory_kib = 64
passes = 1
{more}
"#,
        data.display()
    )
}

/// Runs the binary; its standard output, or what it complained about.
#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
pub(crate) async fn chappe(arguments: Vec<String>) -> Result<String, String> {
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chappe"));
        let variables = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CHAPPE"));
        for (name, _) in variables {
            command.env_remove(name);
        }
        command.args(arguments).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A plain HTTP client.
#[derive(Clone)]
pub(crate) struct Http {
    base: String,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

impl Http {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self { base: format!("http://{address}"), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// One request; status and body.
    pub(crate) async fn raw(&self, request: http::request::Builder, body: String) -> (StatusCode, String) {
        let request: Request<Full<Bytes>> = request.body(Full::from(body)).unwrap();
        let exchange = async {
            let response = self.client.request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    /// A request to `path` with a JSON body.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Value,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(self.uri(path));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = self.raw(request, body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> (StatusCode, Value) {
        self.call(Method::GET, path, token, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, None, body).await
    }

    /// The address of a path.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}
