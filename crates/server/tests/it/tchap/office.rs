//! Servers in the process that talk with each other.

use std::sync::Arc;

use axum::{Router, body::Body};
use chappe_server::config::Api;
use chappe_world::{FakeNet, World};
use http::{Request, header};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host;
pub(super) use crate::host::Answer;

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
        let text = host::configuration(name, folder.path(), more);
        let seed = name.bytes().map(u64::from).sum();
        let apis = [Api::Client, Api::Media, Api::Federation, Api::Identity];
        let (_, router, world) = host::place(net, (name, seed), &text, &apis).await;
        Self { router, world, _folder: folder }
    }

    /// Sends a request as it is.
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        host::send(&self.router, request).await
    }

    pub(super) async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        host::call(&self.router, token, (method, path), body).await
    }

    /// Signs somebody up.
    pub(super) async fn agent(&self, name: &str) -> Agent<'_> {
        let said = host::sign_up(&self.router, name).await;
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
