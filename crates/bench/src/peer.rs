//! Another homeserver, inside this process: it publishes a key, signs real events, sends them and answers what it is told to.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use chappe_bench::Authority;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use ruma::{
    CanonicalJsonObject,
    canonical_json::try_from_json_map,
    room_version_rules::RoomVersionRules,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, hash_and_sign_event, reference_hash, sign_json},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What precedes a seed in a PKCS #8 document.
const HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Answers a request by path and body; none: 404.
pub(crate) type Answers = Arc<dyn Fn(&str, &Bytes) -> Option<Bytes> + Send + Sync>;

/// The server. Gone when dropped.
pub(crate) struct Peer {
    /// An address on loopback with its port.
    pub(crate) name: String,
    pair: Ed25519KeyPair,
    tls: Arc<ClientConfig>,
    silent: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

/// A user of a peer in a room of the measured server.
pub(crate) struct Seat {
    pub(crate) room: String,
    pub(crate) user: String,
    /// The newest event of the user, and how deep in the room it is.
    pub(crate) last: String,
    pub(crate) depth: u64,
    auth: Vec<String>,
}

/// A connection to the measured server.
pub(crate) struct Link<'a> {
    peer: &'a Peer,
    to: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Peer {
    pub(crate) async fn start(authority: &Authority, answers: Answers) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let name = address.to_string();
        let seed = [u8::try_from(address.port() % 251)? + 1; 32];
        let pair = Ed25519KeyPair::from_der(&[&HEAD[..], &seed].concat(), "k".to_owned())?;
        let folder = tempfile::tempdir()?;
        authority.issue(address.ip(), folder.path())?;
        let certificate = CertificateDer::from_pem_file(folder.path().join("tls.pem"))?;
        let key = PrivateKeyDer::from_pem_file(folder.path().join("tls.key"))?;
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.file())?)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let silent = Arc::new(AtomicBool::new(false));
        let document = Bytes::from(key_document(&name, &pair)?);
        let answers: Answers = Arc::new(move |path, body| match path {
            path if path.starts_with("/_matrix/key/v2/server") => Some(document.clone()),
            path => answers(path, body),
        });
        let serving = serve(listener, TlsAcceptor::from(Arc::new(server)), answers, Arc::clone(&silent));
        Ok(Self { name, pair, tls: Arc::new(client), silent, serving: tokio::spawn(serving) })
    }

    /// From now on it takes connections and says nothing.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Relaxed);
    }

    /// A connection to a server at an address on loopback.
    pub(crate) async fn link(&self, to: &str) -> Result<Link<'_>> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let host = ServerName::try_from("127.0.0.1")?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(host, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Link { peer: self, to: to.to_owned(), sender })
    }

    /// Hashes and signs an event; its id and its JSON.
    pub(crate) fn sign(&self, event: Value) -> Result<(String, Value)> {
        let mut event = canonical(event)?;
        hash_and_sign_event(&self.name, &self.pair, &mut event, &RoomVersionRules::V11.redaction)?;
        Ok((id_of(&event)?, serde_json::to_value(&event)?))
    }

    /// A message of a seat after its newest event, which it then is.
    pub(crate) fn message(&self, seat: &mut Seat, body: &str) -> Result<(String, Value)> {
        let event = seat.event("m.room.message", None, json!({ "msgtype": "m.text", "body": body }));
        let (id, event) = self.sign(event)?;
        (seat.last, seat.depth) = (id.clone(), seat.depth + 1);
        Ok((id, event))
    }
}

impl Seat {
    /// An event after the user's newest one.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub(crate) fn event(&self, kind: &str, key: Option<&str>, content: Value) -> Value {
        let mut event = json!({
            "room_id": self.room, "sender": self.user, "type": kind, "content": content, "depth": self.depth + 1,
            "prev_events": [self.last], "auth_events": self.auth, "origin_server_ts": now(),
        });
        if let Some(key) = key {
            event["state_key"] = json!(key);
        }
        event
    }

    /// A seat of whoever made a room, after its events.
    pub(crate) fn founded(room: &str, user: &str, auth: Vec<String>, (last, depth): (String, u64)) -> Self {
        Self { room: room.to_owned(), user: user.to_owned(), last, depth, auth }
    }
}

impl Link<'_> {
    /// A signed request; anything but 200 is an error.
    pub(crate) async fn call(&mut self, method: Method, uri: &str, body: Option<Value>) -> Result<Value> {
        let name = &self.peer.name;
        let mut signed =
            json!({ "method": method.as_str(), "uri": uri, "origin": name, "destination": self.to });
        let bytes = body.as_ref().map(Value::to_string).unwrap_or_default();
        if let Some(body) = body {
            signed["content"] = body;
        }
        let mut signed = canonical(signed)?;
        sign_json(name, &self.peer.pair, &mut signed)?;
        let signed = serde_json::to_value(&signed)?;
        let signature = signed["signatures"][name]["ed25519:k"].as_str().context("no signature")?;
        let proof = format!(
            "X-Matrix origin=\"{name}\",destination=\"{}\",key=\"ed25519:k\",sig=\"{signature}\"",
            self.to
        );
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", &self.to)
            .header("authorization", proof)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == 200, "{uri}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    /// Has a user of the peer join a room.
    pub(crate) async fn join(&mut self, room: &str) -> Result<Seat> {
        let user = format!("@far:{}", self.peer.name);
        let uri = format!("/_matrix/federation/v1/make_join/{room}/{user}?ver=11");
        let offer = self.call(Method::GET, &uri, None).await?;
        let (id, event) = self.peer.sign(offer["event"].clone())?;
        let uri = format!("/_matrix/federation/v2/send_join/{room}/{id}");
        let answer = self.call(Method::PUT, &uri, Some(event)).await?;
        let mut auth = vec![id.clone()];
        for event in answer["state"].as_array().context("no state")? {
            if event["type"] == "m.room.create" || event["type"] == "m.room.power_levels" {
                auth.push(id_of(&canonical(event.clone())?)?);
            }
        }
        let depth = offer["event"]["depth"].as_u64().context("no depth")?;
        Ok(Seat::founded(room, &user, auth, (id, depth)))
    }

    /// Sends a transaction; every event must be taken.
    pub(crate) async fn send(&mut self, txn: &str, pdus: Vec<Value>) -> Result<()> {
        let body = json!({ "origin": self.peer.name, "origin_server_ts": now(), "pdus": pdus });
        let answer =
            self.call(Method::PUT, &format!("/_matrix/federation/v1/send/{txn}"), Some(body)).await?;
        for (id, result) in answer["pdus"].as_object().context("no pdus")? {
            ensure!(result.get("error").is_none(), "{id}: {result}");
        }
        Ok(())
    }
}

fn canonical(value: Value) -> Result<CanonicalJsonObject> {
    let Value::Object(object) = value else { anyhow::bail!("not an object") };
    Ok(try_from_json_map(object)?)
}

fn id_of(event: &CanonicalJsonObject) -> Result<String> {
    Ok(format!("${}", reference_hash(event, &RoomVersionRules::V11)?))
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

fn key_document(name: &str, pair: &Ed25519KeyPair) -> Result<String> {
    let key = Base64::<Standard, _>::new(pair.public_key());
    let mut document = canonical(json!({
        "server_name": name, "valid_until_ts": now() + 86_400_000,
        "verify_keys": { "ed25519:k": { "key": key } }, "old_verify_keys": {},
    }))?;
    sign_json(name, pair, &mut document)?;
    Ok(serde_json::to_string(&document)?)
}

/// Connections end with this.
async fn serve(listener: TcpListener, tls: TlsAcceptor, answers: Answers, silent: Arc<AtomicBool>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, answers, silent) = (tls.clone(), Arc::clone(&answers), Arc::clone(&silent));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service =
                service_fn(move |request| answer(request, Arc::clone(&answers), Arc::clone(&silent)));
            let builder = auto::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(stream), service).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    silent: Arc<AtomicBool>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if silent.load(Relaxed) {
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let found = answers(&path, &body);
    let mut response = Response::new(Full::new(Bytes::new()));
    match found {
        Some(body) => *response.body_mut() = Full::new(body),
        None => {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            *response.body_mut() =
                Full::new(Bytes::from_static(b"{\"errcode\":\"M_NOT_FOUND\",\"error\":\"no\"}"));
        }
    }
    Ok(response)
}
