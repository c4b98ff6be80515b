//! Servers in the process that talk with each other.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use chappe_kv::{Db, Memory};
use chappe_server::{
    House,
    config::{self, Api},
};
use chappe_world::{Fake, FakeNet, World};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server.
pub(super) struct Office {
    router: Router,
    pub(super) world: World,
    _folder: Arc<TempDir>,
}

/// Somebody logged in there.
pub(super) struct Agent<'a> {
    office: &'a Office,
    pub(super) id: String,
    pub(super) token: String,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
    pub(super) json: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(super) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.json);
        self.json
    }

    /// The status and error code of a refusal.
    #[track_caller]
    pub(super) fn refused(self, status: u16, errcode: &str) {
        assert_eq!((self.status.as_u16(), &self.json["errcode"]), (status, &json!(errcode)), "{}", self.json);
    }
}

impl Office {
    /// A server alone in the world, with more lines of configuration.
    pub(super) async fn alone(more: &str) -> Self {
        Self::on(&FakeNet::new(), "a.test", more).await
    }

    /// A server on a network.
    pub(super) async fn on(net: &FakeNet, name: &str, more: &str) -> Self {
        Self::placed(Arc::new(tempfile::tempdir().unwrap()), net, name, more).await
    }

    /// A server in a folder that may have been another one's, or hold files of the test.
    pub(super) async fn placed(folder: Arc<TempDir>, net: &FakeNet, name: &str, more: &str) -> Self {
        let text = format!(
            r#"
server_name = "{name}"
public_baseurl = "https://{name}"
data_dir = {:?}
[[listeners]]
port = 0
apis = ["client", "media", "federation", "identity"]
[client.registration]
open = true
[accounts.password]
memory_kib = 64
passes = 1
{more}
"#,
            folder.path().display().to_string()
        );
        let config = config::parse("test", &text, std::iter::empty()).unwrap();
        let seed = name.bytes().map(u64::from).sum();
        let world = World::fake(Fake::new(name, seed, net));
        let house = House::build(&config, world.clone(), Db::new(Memory::default())).await.unwrap();
        house.start();
        let router = house.router(&BTreeSet::from([Api::Client, Api::Media, Api::Federation, Api::Identity]));
        net.route(name, &world, router.clone());
        Self { router, world, _folder: folder }
    }

    /// Sends a request as it is.
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let answer = tokio::time::timeout(PATIENCE, self.router.clone().oneshot(request)).await;
        let (parts, body) = answer.expect("an answer in time").unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, bytes, json }
    }

    pub(super) async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).unwrap()).await
    }

    /// Signs somebody up.
    pub(super) async fn agent(&self, name: &str) -> Agent<'_> {
        let body = json!({
            "username": name, "password": "correct horse battery", "auth": { "type": "m.login.dummy" },
        });
        let said = self.call("", "POST", "/_matrix/client/v3/register", body).await.ok();
        let text = |field: &str| said[field].as_str().unwrap().to_owned();
        Agent { office: self, id: text("user_id"), token: text("access_token") }
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.world.kill();
    }
}

impl Agent<'_> {
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.office.call(&self.token, "GET", path, Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Answer {
        self.office.call(&self.token, "POST", path, body).await
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> Answer {
        self.office.call(&self.token, "PUT", path, body).await
    }

    /// Uploads a file; `server/id`.
    pub(super) async fn upload(&self, bytes: &[u8]) -> String {
        let request = Request::post("/_matrix/media/v3/upload")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Body::from(bytes.to_vec()));
        let made = self.office.send(request.unwrap()).await.ok();
        made["content_uri"].as_str().unwrap().trim_start_matches("mxc://").to_owned()
    }

    /// An OpenID token.
    pub(super) async fn openid(&self) -> Value {
        let path = format!("/_matrix/client/v3/user/{}/openid/request_token", self.id);
        self.post(&path, json!({})).await.ok()
    }
}
