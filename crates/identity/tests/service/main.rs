//! The identity service over a store in memory, with homeservers and a mailer that keep what they are given.
#![expect(clippy::unwrap_used, reason = "a test that goes wrong should stop at once")]

mod bindings;
mod invitations;
mod map;
mod members;
mod network;
mod tokens;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use chappe_accounts::{Accounts, AccountsConfig};
use chappe_identity::{
    Config, Elsewhere, Email, Error, HomeserverError, Homeservers, Identity, IdentityServer, IdentityService,
    Invitation, Mail, MailError, Mailer, MapTarget, OpenIdToken, Post, Purpose, ServiceConfig, ServiceDeps,
    Site, StoredInvite, TokenRequest, lookup_hash,
};
use chappe_kv::{Db, Memory};
use chappe_rules::build::SigningKey;
use chappe_store::Store;
use chappe_world::{Fake, FakeNet, World};
use parking_lot::Mutex;
use ruma::{
    ClientSecret, OwnedClientSecret, OwnedServerName, OwnedSessionId, OwnedUserId, ServerName, SessionId,
    UserId, owned_room_id, user_id,
};
use serde_json::{Map, Value, json};

const SERVER: &str = "a.example";
const BOB: &str = "@bob:b.example";

#[derive(Default)]
struct Kept {
    mails: Mutex<Vec<Mail>>,
    broken: AtomicBool,
    slow: AtomicBool,
}

#[async_trait]
impl Mailer for Kept {
    async fn send(&self, mail: Mail) -> Result<(), MailError> {
        if self.slow.load(Relaxed) {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        if self.broken.load(Relaxed) {
            return Err(MailError::Relay("down".to_owned()));
        }
        self.mails.lock().push(mail);
        Ok(())
    }
}

/// Homeservers that answer as they were told to.
#[derive(Default)]
struct Told {
    users: Mutex<BTreeMap<String, OwnedUserId>>,
    news: Mutex<Vec<Value>>,
    notices: Mutex<Vec<(String, Value)>>,
    answer: Mutex<Option<HomeserverError>>,
    elsewhere: Arc<Another>,
}

/// Another identity server.
#[derive(Default)]
struct Another {
    /// What it answers to `unbind`; nothing: it is not reached.
    answer: Mutex<Option<bool>>,
    /// What it was asked to forget.
    asked: Mutex<Vec<(String, OwnedUserId)>>,
}

#[async_trait]
impl IdentityServer for Another {
    async fn lookup(&self, _: &Email) -> Result<Option<OwnedUserId>, Error> {
        Err(Error::Unreachable)
    }

    async fn homeserver_of(&self, _: &Email) -> Result<Option<OwnedServerName>, Error> {
        Err(Error::Unreachable)
    }

    async fn store_invite(&self, _: Invitation) -> Result<StoredInvite, Error> {
        Err(Error::Unreachable)
    }

    async fn bind(&self, _: &SessionId, _: &ClientSecret, _: &UserId) -> Result<Email, Error> {
        Ok(email("bob@b.fr"))
    }

    async fn unbind(&self, address: &Email, user: &UserId) -> Result<bool, Error> {
        self.asked.lock().push((address.to_string(), user.to_owned()));
        self.answer.lock().ok_or(Error::Unreachable)
    }
}

#[async_trait]
impl Homeservers for Told {
    async fn openid_user(&self, _: &ServerName, token: &str) -> Result<OwnedUserId, HomeserverError> {
        self.users.lock().get(token).cloned().ok_or(HomeserverError::Refused("unknown".to_owned()))
    }

    async fn onbind(&self, _: &UserId, news: Value) -> Result<(), HomeserverError> {
        self.news.lock().push(news);
        self.answer.lock().clone().map_or(Ok(()), Err)
    }

    async fn tell(&self, server: &ServerName, message: Value) -> Result<(), HomeserverError> {
        self.notices.lock().push((server.to_string(), message));
        self.answer.lock().clone().map_or(Ok(()), Err)
    }

    fn identity_server(&self, _: Elsewhere) -> Arc<dyn IdentityServer> {
        self.elsewhere.clone()
    }
}

struct Lab {
    service: IdentityService,
    accounts: Accounts,
    world: World,
    mailer: Arc<Kept>,
    homeservers: Arc<Told>,
    secret: OwnedClientSecret,
}

impl Lab {
    async fn new() -> Self {
        Self::with(Config::default(), memory(), 0).await
    }

    async fn serving(service: ServiceConfig) -> Self {
        let config = Config { service, ..Config::default() };
        Self::with(config, memory(), 0).await
    }

    /// On a store that may be there already, so many milliseconds later.
    async fn with(config: Config, store: Store, later_ms: u64) -> Self {
        let mut fake = Fake::new(SERVER, 1 + later_ms, &FakeNet::default());
        fake.epoch_ms += later_ms;
        let world = World::fake(fake);
        let (mailer, homeservers) = (Arc::new(Kept::default()), Arc::new(Told::default()));
        let site = Site {
            server_name: SERVER.try_into().unwrap(),
            public_baseurl: "https://matrix.a.example/".to_owned(),
        };
        let post = Some(Post::plain(mailer.clone()));
        let identity = Identity::new(store.clone(), world.clone(), post, config, site).await.unwrap();
        let accounts =
            Accounts::new(store, world.clone(), SERVER.try_into().unwrap(), AccountsConfig::default());
        let key = Arc::new(SigningKey::from_seed([3; 32], "k").unwrap());
        let deps =
            ServiceDeps { identity, accounts: accounts.clone(), key, homeservers: homeservers.clone() };
        let service = IdentityService::new(deps);
        Self { service, accounts, world, mailer, homeservers, secret: "secret-1".try_into().unwrap() }
    }

    fn identity(&self) -> &Identity {
        self.service.identity()
    }

    /// A validated session for an address.
    async fn session(&self, address: &str) -> OwnedSessionId {
        let request = TokenRequest {
            address,
            client_secret: &self.secret,
            send_attempt: 1,
            next_link: None,
            ip: None,
            language: None,
        };
        let sid = self.identity().request_token(Purpose::Bind, request).await.unwrap();
        let token = self.token();
        self.identity().submit(&sid, &self.secret, &token).await.unwrap();
        sid
    }

    /// The token of the last mail's link.
    fn token(&self) -> String {
        let mails = self.mailer.mails.lock();
        let text = &mails.last().unwrap().text;
        let (_, after) = text.split_once("&token=").unwrap();
        after.split('&').next().unwrap().to_owned()
    }

    async fn bound(&self, address: &str, user: &UserId) {
        let sid = self.session(address).await;
        self.service.bind(&sid, &self.secret, user).await.unwrap();
    }

    async fn find(&self, address: &str) -> Option<OwnedUserId> {
        let pepper = self.service.pepper().await.unwrap();
        let hash = lookup_hash(&email(address), &pepper);
        let found = self.service.lookup("sha256", &pepper, std::slice::from_ref(&hash)).await.unwrap();
        found.get(&hash).cloned()
    }
}

fn memory() -> Store {
    Store::new(Db::new(Memory::default()))
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

fn invitation(address: &str) -> Invitation {
    let told = json!({ "room_name": "Salon", "sender_display_name": "Alice [A]" });
    Invitation {
        address: email(address),
        room: owned_room_id!("!r:a.example"),
        sender: user_id!("@alice:a.example").to_owned(),
        told: serde_json::from_value::<Map<String, Value>>(told).unwrap(),
        language: None,
    }
}

fn bob() -> OwnedUserId {
    UserId::parse(BOB).unwrap()
}

fn openid(token: &str, server: &str) -> OpenIdToken {
    OpenIdToken { access_token: token.to_owned(), matrix_server_name: ServerName::parse(server).unwrap() }
}

fn target(hs: &str, requires_invite: bool) -> MapTarget {
    MapTarget { hs: ServerName::parse(hs).unwrap(), shadow_hs: None, requires_invite }
}
