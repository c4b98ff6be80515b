//! A server in the process with real mail, whose clock tests turn forward and which they stop and start again.

use std::time::Duration;

use axum::{Router, body::Body};
use chappe_accounts::Accounts;
use chappe_admin::Verb;
use chappe_kv::{Db, Memory};
use chappe_server::{House, config::Api, mail_sink::Received};
use chappe_world::{Fake, FakeNet, World};
use clap::Parser;
use ruma::{OwnedUserId, UserId, thirdparty::Medium};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{advance, pause, resume};

use crate::host::{self, Mails};
pub(super) use crate::host::{Answer, PASSWORD};

pub(super) const DAY: Duration = Duration::from_hours(24);

/// A server of the network.
pub(super) struct Ministry {
    pub(super) house: House,
    router: Router,
    pub(super) accounts: Accounts,
    pub(super) world: World,
    net: FakeNet,
    pub(super) name: &'static str,
    text: String,
    db: Db,
    mails: Mails,
    _folder: TempDir,
}

/// Somebody logged in.
#[derive(Clone)]
pub(super) struct Agent {
    pub(super) id: OwnedUserId,
    pub(super) token: String,
}

impl Ministry {
    /// A server alone in the world, with more lines of configuration.
    pub(super) async fn alone(more: &str) -> Self {
        Self::on(&FakeNet::new(), "a.gouv.fr", more).await
    }

    /// A server on a network.
    pub(super) async fn on(net: &FakeNet, name: &'static str, more: &str) -> Self {
        let (folder, mails) = (tempfile::tempdir().unwrap(), Mails::start().await);
        let text = host::configuration(name, folder.path(), &format!("{more}\n{}", mails.section(name)));
        let seed = name.bytes().map(u64::from).sum();
        let (db, world) = (Db::new(Memory::default()), World::fake(Fake::new(name, seed, net)));
        let (house, router) = begin(&text, &world, &db, (net, name)).await;
        let accounts = house.accounts.clone();
        // Before anybody is there: accounts that are made from now on have their end from the beginning.
        while accounts.accounts_end() && accounts.enrol_some().await.unwrap() {}
        let net = net.clone();
        Self { house, router, accounts, world, net, name, text, db, mails, _folder: folder }
    }

    /// Ends the server as a crash does and starts it again on the same disk, so much later, after `change` of what is
    /// configured.
    pub(super) async fn again(&mut self, later: Duration, change: impl FnOnce(String) -> String) {
        self.world.kill();
        self.text = change(std::mem::take(&mut self.text));
        let mut fake = Fake::new(self.name, self.world.random(), &self.net);
        fake.epoch_ms = self.world.now() + millis(later);
        self.world = World::fake(fake);
        (self.house, self.router) = begin(&self.text, &self.world, &self.db, (&self.net, self.name)).await;
        self.accounts = self.house.accounts.clone();
    }

    /// Turns the clock forward; what is due then happens beside.
    pub(super) async fn later(&self, by: Duration) {
        pause();
        advance(by).await;
        resume();
    }

    /// Sends a request with JSON, or without a body.
    pub(super) async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        host::call(&self.router, token, (method, path), body).await
    }

    /// Asks what the network's own servers alone may ask.
    pub(super) async fn inside(&self, method: &str, path: &str, body: Value) -> Answer {
        let router = self.house.router(&[Api::IdentityInternal].into());
        host::call(&router, "", (method, path), body).await
    }

    /// Has the operator do something; what `chappe admin` would print.
    pub(super) async fn verb(&self, line: &[&str]) -> Result<String, chappe_admin::Error> {
        #[derive(Parser)]
        struct Line {
            #[command(subcommand)]
            verb: Verb,
        }
        let line = Line::try_parse_from(std::iter::once(&"admin").chain(line)).unwrap();
        Ok(self.house.admin.run(line.verb).await?.lines.join("\n"))
    }

    /// The token of somebody for the identity service of this server.
    pub(super) async fn member(&self, agent: &Agent) -> String {
        let path = format!("/user/{}/openid/request_token", agent.id);
        let openid = self.call(&agent.token, "POST", &path, json!({})).await.ok();
        let said = self.call("", "POST", "/_matrix/identity/v2/account/register", openid).await.ok();
        said["token"].as_str().unwrap().to_owned()
    }

    /// Sends a request with any text.
    pub(super) async fn send(&self, token: &str, method: &str, path: &str, text: String) -> Answer {
        let mut request = host::request(token, (method, path), &Value::Null);
        *request.body_mut() = Body::from(text);
        host::send(&self.router, request).await
    }

    /// Signs somebody up, with an address.
    pub(super) async fn agent(&self, name: &str) -> Agent {
        let said = host::sign_up(&self.router, name).await;
        let id = UserId::parse(said["user_id"].as_str().unwrap()).unwrap();
        let address = format!("{name}@{}", self.name);
        self.accounts.add_threepid(&id, &Medium::Email, &address, (1, None)).await.unwrap();
        Agent { id, token: said["access_token"].as_str().unwrap().to_owned() }
    }

    /// Signs a server administrator up.
    pub(super) async fn administrator(&self, name: &str) -> Agent {
        let agent = self.agent(name).await;
        self.accounts.update_user(&agent.id, |user| user.admin = true).await.unwrap();
        agent
    }

    /// The next mail.
    pub(super) async fn mail(&mut self) -> Received {
        self.mails.next().await
    }

    /// Holds that no mail comes.
    pub(super) async fn no_mail(&mut self) {
        self.mails.none().await;
    }
}

impl Drop for Ministry {
    fn drop(&mut self) {
        self.world.kill();
    }
}

async fn begin(text: &str, world: &World, db: &Db, (net, name): (&FakeNet, &str)) -> (House, Router) {
    let apis = [Api::Client, Api::Media, Api::Federation, Api::Identity, Api::Admin];
    let (house, router) = host::build(text, world, db, &apis).await;
    net.route(name, world, router.clone());
    (house, router)
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap()
}
