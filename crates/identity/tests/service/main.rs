//! The identity service over a store in memory, with homeservers and a mailer that keep what they are given.
#![expect(clippy::unwrap_used, reason = "a test that goes wrong should stop at once")]

mod members;
mod network;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use chappe_accounts::{Accounts, AccountsConfig, Erase, NewUser};
use chappe_identity::{
    Config, Elsewhere, Email, Error, HomeserverError, Homeservers, Identity, IdentityServer, IdentityService,
    Invitation, Mail, MailError, Mailer, MapTarget, OpenIdToken, Policy, PolicyText, Post, Profile, Purpose,
    ServiceConfig, ServiceDeps, Site, StoredInvite, TokenRequest, lookup_hash,
};
use chappe_kv::Memory;
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
    mailer: Arc<Kept>,
    homeservers: Arc<Told>,
    secret: OwnedClientSecret,
}

impl Lab {
    async fn new() -> Self {
        Self::with(Config::default(), Store::new(chappe_kv::Db::new(Memory::default())), 0).await
    }

    async fn serving(service: ServiceConfig) -> Self {
        let config = Config { service, ..Config::default() };
        Self::with(config, Store::new(chappe_kv::Db::new(Memory::default())), 0).await
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
        let accounts = Accounts::new(store, world, SERVER.try_into().unwrap(), AccountsConfig::default());
        let key = Arc::new(SigningKey::from_seed([3; 32], "k").unwrap());
        let deps =
            ServiceDeps { identity, accounts: accounts.clone(), key, homeservers: homeservers.clone() };
        let service = IdentityService::new(deps);
        Self { service, accounts, mailer, homeservers, secret: "secret-1".try_into().unwrap() }
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

const BOB: &str = "@bob:b.example";

fn bob() -> OwnedUserId {
    UserId::parse(BOB).unwrap()
}

#[tokio::test]
async fn a_bound_address_is_found_by_its_hash_until_it_is_unbound() {
    let lab = Lab::new().await;
    assert_eq!(lab.find("bob@b.fr").await, None);
    let sid = lab.session("Bob@B.fr").await;
    let signed = lab.service.bind(&sid, &lab.secret, &bob()).await.unwrap();
    let signed = serde_json::to_value(&signed).unwrap();
    assert_eq!((&signed["address"], &signed["mxid"]), (&json!("bob@b.fr"), &json!(BOB)));
    assert!(
        signed["signatures"][SERVER].as_object().unwrap().keys().next().unwrap().starts_with("ed25519:k_")
    );
    assert_eq!(lab.find("BOB@b.fr").await, Some(bob()));

    let pepper = lab.service.pepper().await.unwrap();
    let plain = ["bob@b.fr email".to_owned(), "eve@b.fr email".to_owned(), "nonsense".to_owned()];
    let found = lab.service.lookup("none", &pepper, &plain).await.unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(plain[0].clone(), bob())]);
    assert!(matches!(lab.service.lookup("none", "old", &plain).await, Err(Error::InvalidPepper)));
    assert!(matches!(lab.service.lookup("md5", &pepper, &plain).await, Err(Error::Invalid(_))));
    let many = vec![String::new(); 1001];
    assert!(matches!(lab.service.lookup("none", &pepper, &many).await, Err(Error::Invalid(_))));

    assert!(!lab.service.unbind(&email("bob@b.fr"), user_id!("@eve:b.example")).await.unwrap());
    assert_eq!(lab.find("bob@b.fr").await, Some(bob()));
    assert!(lab.service.unbind(&email("bob@b.fr"), &bob()).await.unwrap());
    assert_eq!(lab.find("bob@b.fr").await, None);
}

#[tokio::test]
async fn a_session_is_no_proof_without_its_secret_or_its_confirmation() {
    let lab = Lab::new().await;
    let request = TokenRequest {
        address: "bob@b.fr",
        client_secret: &lab.secret,
        send_attempt: 1,
        next_link: None,
        ip: None,
        language: None,
    };
    let sid = lab.identity().request_token(Purpose::Bind, request).await.unwrap();
    let bind = lab.service.bind(&sid, &lab.secret, &bob()).await;
    assert!(matches!(bind, Err(Error::NotValidated)));
    let other: OwnedClientSecret = "secret-2".try_into().unwrap();
    let token = lab.token();
    assert!(matches!(lab.identity().submit(&sid, &other, &token).await, Err(Error::NoSession)));
    assert!(matches!(lab.identity().submit(&sid, &lab.secret, "guess").await, Err(Error::WrongToken)));
    lab.identity().submit(&sid, &lab.secret, &token).await.unwrap();
    assert!(matches!(lab.service.bind(&sid, &other, &bob()).await, Err(Error::NoSession)));
    // A validation for one thing is worth nothing for another.
    let other = lab.identity().validated(Purpose::AddToAccount, &sid, &lab.secret).await;
    assert!(matches!(other, Err(Error::NoSession)));
    let unbind = lab.service.unbind_proved(&sid, &lab.secret, &email("eve@b.fr"), &bob()).await;
    assert!(matches!(unbind, Err(Error::Invalid(_))));
    lab.service.bind(&sid, &lab.secret, &bob()).await.unwrap();
    assert!(lab.service.unbind_proved(&sid, &lab.secret, &email("bob@b.fr"), &bob()).await.unwrap());
}

#[tokio::test]
async fn turning_the_pepper_loses_nobody_and_voids_the_old_one() {
    let lab = Lab::new().await;
    lab.bound("bob@b.fr", &bob()).await;
    let old = lab.service.pepper().await.unwrap();
    lab.service.turn_pepper().await.unwrap();
    let new = lab.service.pepper().await.unwrap();
    assert_ne!(old, new);
    assert_eq!(lab.find("bob@b.fr").await, Some(bob()));
    lab.bound("eve@b.fr", user_id!("@eve:b.example")).await;
    assert!(lab.find("eve@b.fr").await.is_some());
    assert!(matches!(lab.service.lookup("sha256", &old, &[]).await, Err(Error::InvalidPepper)));
}

#[tokio::test]
async fn the_pepper_is_turned_when_its_time_has_come() {
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let lab = Lab::with(Config::default(), store.clone(), 0).await;
    lab.bound("bob@b.fr", &bob()).await;
    let old = lab.service.pepper().await.unwrap();
    lab.service.work().await.unwrap();
    assert_eq!(lab.service.pepper().await.unwrap(), old);
    let later = Lab::with(Config::default(), store, 8 * 24 * 3_600_000).await;
    later.service.work().await.unwrap();
    assert_ne!(later.service.pepper().await.unwrap(), old);
    assert_eq!(later.find("bob@b.fr").await, Some(bob()));
}

#[tokio::test]
async fn an_invitation_waits_for_its_address_and_is_handed_on_once() {
    let lab = Lab::new().await;
    let stored = lab.service.store_invite(invitation("Bob@b.fr")).await.unwrap();
    assert_eq!(stored.token.len(), 128);
    assert_eq!(stored.display_name, "b...@b....fr");
    assert!(lab.identity().is_invited(&email("bob@b.fr")).await.unwrap());
    let mail = lab.mailer.mails.lock().last().unwrap().clone();
    assert_eq!(mail.to, email("bob@b.fr"));
    assert!(mail.text.contains("Alice [A] vous invite dans « Salon »."), "{}", mail.text);
    assert!(mail.text.contains("Alice [A] invites you to \"Salon\"."));

    lab.bound("bob@b.fr", &bob()).await;
    lab.service.work().await.unwrap();
    assert!(!lab.identity().is_invited(&email("bob@b.fr")).await.unwrap());
    let news = lab.homeservers.news.lock().clone();
    assert_eq!(news.len(), 1);
    let invite = &news[0]["invites"][0];
    assert_eq!((&news[0]["mxid"], &invite["room_id"]), (&json!(BOB), &json!("!r:a.example")));
    assert_eq!(
        (&invite["sender"], &invite["signed"]["token"]),
        (&json!("@alice:a.example"), &json!(stored.token))
    );
    assert_eq!(invite["signed"]["mxid"], BOB);
    assert!(invite["signed"]["signatures"][SERVER].is_object() && news[0]["signatures"][SERVER].is_object());

    lab.service.work().await.unwrap();
    assert_eq!(lab.homeservers.news.lock().len(), 1);
    let again = lab.service.store_invite(invitation("bob@b.fr")).await;
    assert!(matches!(again, Err(Error::Bound { user }) if user == BOB));
}

#[tokio::test]
async fn what_a_homeserver_did_not_hear_is_told_again_and_what_it_refused_is_not() {
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let lab = Lab::with(Config::default(), store.clone(), 0).await;
    lab.service.store_invite(invitation("bob@b.fr")).await.unwrap();
    *lab.homeservers.answer.lock() = Some(HomeserverError::Unreachable);
    lab.bound("bob@b.fr", &bob()).await;
    let wait = lab.service.work().await.unwrap();
    assert!(wait > Duration::from_secs(3), "{wait:?}");
    assert_eq!(lab.homeservers.news.lock().len(), 1);

    // After a restart.
    let later = Lab::with(Config::default(), store.clone(), 60_000).await;
    *later.homeservers.answer.lock() = Some(HomeserverError::Refused("M_FORBIDDEN".to_owned()));
    later.service.work().await.unwrap();
    assert_eq!(later.homeservers.news.lock().len(), 1);
    let last = Lab::with(Config::default(), store, 3_600_000).await;
    last.service.work().await.unwrap();
    assert_eq!(last.homeservers.news.lock().len(), 0);
}

#[tokio::test]
async fn a_new_account_is_bound_and_a_closed_one_is_not_found_any_more() {
    let lab = Lab::new().await;
    lab.service.store_invite(invitation("carol@a.fr")).await.unwrap();
    let new = |published| NewUser {
        localpart: Some(if published { "carol" } else { "dave" }.to_owned()),
        email: Some(if published { "carol@a.fr" } else { "dave@a.fr" }.to_owned()),
        published,
        ..NewUser::default()
    };
    let carol = lab.accounts.create_user(new(true)).await.unwrap();
    lab.accounts.create_user(new(false)).await.unwrap();
    lab.service.work().await.unwrap();
    assert_eq!(lab.find("carol@a.fr").await, Some(carol.clone()));
    assert_eq!(lab.find("dave@a.fr").await, None);
    assert_eq!(lab.homeservers.news.lock().len(), 1);
    lab.accounts.deactivate(&carol, Erase::No).await.unwrap();
    assert_eq!(lab.find("carol@a.fr").await, None);
}

#[tokio::test]
async fn invitations_end_and_are_rationed() {
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let service = ServiceConfig { invites_per_sender: 2, ..ServiceConfig::default() };
    let config = Config { service, mails_per_address: 0, ..Config::default() };
    let lab = Lab::with(config.clone(), store.clone(), 0).await;
    lab.service.store_invite(invitation("x@b.fr")).await.unwrap();
    lab.service.store_invite(invitation("y@b.fr")).await.unwrap();
    let third = lab.service.store_invite(invitation("z@b.fr")).await;
    assert!(matches!(third, Err(Error::TooMany { .. })));
    let later = Lab::with(config, store, 15 * 24 * 3_600_000).await;
    assert!(!later.identity().is_invited(&email("x@b.fr")).await.unwrap());
    later.service.work().await.unwrap();
    later.bound("x@b.fr", &bob()).await;
    later.service.work().await.unwrap();
    assert_eq!(later.homeservers.news.lock().len(), 0);
}

#[tokio::test]
async fn an_address_waits_for_so_many_invitations_and_one_that_was_not_mailed_does_not_wait() {
    let service = ServiceConfig { invites_per_sender: 0, ..ServiceConfig::default() };
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let lab = Lab::with(Config { service, mails_per_address: 0, ..Config::default() }, store, 0).await;
    lab.mailer.broken.store(true, Relaxed);
    assert!(matches!(lab.service.store_invite(invitation("x@b.fr")).await, Err(Error::Mail(_))));
    assert!(!lab.identity().is_invited(&email("x@b.fr")).await.unwrap());
    lab.mailer.broken.store(false, Relaxed);
    for _ in 0..100 {
        lab.service.store_invite(invitation("x@b.fr")).await.unwrap();
    }
    assert!(matches!(lab.service.store_invite(invitation("x@b.fr")).await, Err(Error::TooManyInvites)));
}

#[tokio::test]
async fn an_invitation_is_signed_with_its_own_key_alone() {
    let lab = Lab::new().await;
    let stored = lab.service.store_invite(invitation("bob@b.fr")).await.unwrap();
    let mail = lab.mailer.mails.lock().last().unwrap().text.clone();
    let (_, after) = mail.split_once("private_key%3D").unwrap();
    let encoded = after.split_whitespace().next().unwrap();
    let once: String =
        url::form_urlencoded::parse(format!("k={encoded}").as_bytes()).next().unwrap().1.into();
    let key: String = url::form_urlencoded::parse(format!("k={once}").as_bytes()).next().unwrap().1.into();
    let signed = lab.service.sign_invite(&stored.token, &key, &bob()).await.unwrap();
    let signed = serde_json::to_value(signed).unwrap();
    assert_eq!((&signed["mxid"], &signed["sender"]), (&json!(BOB), &json!("@alice:a.example")));
    assert!(signed["signatures"][SERVER]["ed25519:0"].is_string());

    let foreign = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert!(matches!(lab.service.sign_invite(&stored.token, foreign, &bob()).await, Err(Error::Invalid(_))));
    assert!(matches!(lab.service.sign_invite("other", &key, &bob()).await, Err(Error::NotFound(_))));
    let [own, ephemeral] = &stored.public_keys[..] else { panic!("two keys") };
    assert!(lab.service.is_own_key(&own.public_key) && !lab.service.is_own_key(&ephemeral.public_key));
    assert!(lab.service.is_invite_key(&ephemeral.public_key).await.unwrap());
    assert!(!lab.service.is_invite_key(&own.public_key).await.unwrap());
    assert!(!lab.service.is_invite_key("%").await.unwrap());
    // The room is still to see it.
    lab.bound("bob@b.fr", &bob()).await;
    lab.service.work().await.unwrap();
    assert!(lab.service.is_invite_key(&ephemeral.public_key).await.unwrap());
}

fn openid(token: &str, server: &str) -> OpenIdToken {
    OpenIdToken { access_token: token.to_owned(), matrix_server_name: ServerName::parse(server).unwrap() }
}

#[tokio::test]
async fn a_homeserver_speaks_for_its_own_users_alone() {
    let lab = Lab::new().await;
    lab.homeservers.users.lock().insert("good".to_owned(), bob());
    let token = lab.service.register(&openid("good", "b.example")).await.unwrap();
    assert_eq!(lab.service.member(&token).await.unwrap(), BOB);
    // evil.example says that its token belongs to a user of b.example.
    let forged = lab.service.register(&openid("good", "evil.example")).await;
    assert!(matches!(forged, Err(Error::Unauthorized(_))));
    assert!(matches!(lab.service.register(&openid("bad", "b.example")).await, Err(Error::Unauthorized(_))));
    assert!(matches!(lab.service.register(&openid("", "b.example")).await, Err(Error::Invalid(_))));
    lab.service.log_out(&token).await.unwrap();
    assert!(matches!(lab.service.member(&token).await, Err(Error::Unauthorized(_))));
}

#[tokio::test]
async fn tokens_do_not_pile_up() {
    let lab = Lab::new().await;
    lab.homeservers.users.lock().insert("good".to_owned(), bob());
    let mut tokens = Vec::new();
    for _ in 0..21 {
        tokens.push(lab.service.register(&openid("good", "b.example")).await.unwrap());
    }
    assert!(lab.service.member(&tokens[0]).await.is_err());
    assert!(lab.service.member(&tokens[1]).await.is_ok() && lab.service.member(&tokens[20]).await.is_ok());
}

#[tokio::test]
async fn policies_are_accepted_by_their_urls_and_again_when_they_change() {
    let policy = |version: &str| {
        let text = |language: &str| {
            let url = format!("https://x.fr/{language}/{version}");
            (language.to_owned(), PolicyText { name: "Terms".to_owned(), url })
        };
        let texts = [text("fr"), text("en")].into();
        let policies = [("terms".to_owned(), Policy { version: version.to_owned(), texts })].into();
        Config { service: ServiceConfig { policies, ..ServiceConfig::default() }, ..Config::default() }
    };
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let lab = Lab::with(policy("1"), store.clone(), 0).await;
    lab.homeservers.users.lock().insert("good".to_owned(), bob());
    let token = lab.service.register(&openid("good", "b.example")).await.unwrap();
    assert!(matches!(lab.service.member_in_good_standing(&token).await, Err(Error::TermsNotSigned)));
    // Nor through the homeserver, which binds and invites with the same token.
    let through = lab.service.server_for(&bob(), SERVER, &token).await;
    assert!(matches!(through.err(), Some(Error::TermsNotSigned)));
    lab.service.accept(&bob(), &["https://evil.example/".to_owned()]).await.unwrap();
    assert!(lab.service.member_in_good_standing(&token).await.is_err());
    lab.service.accept(&bob(), &["https://x.fr/fr/1".to_owned()]).await.unwrap();
    assert_eq!(lab.service.member_in_good_standing(&token).await.unwrap(), BOB);
    lab.service.server_for(&bob(), SERVER, &token).await.unwrap();
    let later = Lab::with(policy("2"), store, 1).await;
    assert!(matches!(later.service.member_in_good_standing(&token).await, Err(Error::TermsNotSigned)));
}

fn target(hs: &str, requires_invite: bool) -> MapTarget {
    MapTarget { hs: ServerName::parse(hs).unwrap(), shadow_hs: None, requires_invite }
}

/// The three answers of a homeserver of the network to an address.
#[tokio::test]
async fn the_map_says_who_may_sign_up_here() {
    let config = Config { profile: Profile::Agents, ..Config::default() };
    let lab = Lab::with(config, Store::new(chappe_kv::Db::new(Memory::default())), 0).await;
    let (identity, map) = (lab.identity(), lab.identity().map());
    assert!(matches!(identity.check_allowed(&email("a@ministry.fr")).await, Err(Error::Denied { .. })));
    map.put(&"*.ministry.fr".parse().unwrap(), &target("b.example", false)).await.unwrap();
    map.put(&"ministry.fr".parse().unwrap(), &target(SERVER, false)).await.unwrap();
    map.put(&"*".parse().unwrap(), &target(SERVER, true)).await.unwrap();
    identity.check_allowed(&email("a@Ministry.fr")).await.unwrap();
    let elsewhere = identity.check_allowed(&email("a@x.ministry.fr")).await.unwrap_err();
    assert!(
        elsewhere.to_string().contains("Votre adresse mail a@x.ministry.fr est associée à un autre serveur")
    );
    let outside = identity.check_allowed(&email("a@gmail.example")).await.unwrap_err();
    assert!(matches!(outside, Error::InvitationMissing { .. }));
    assert!(outside.to_string().starts_with("Vous avez besoin d'une invitation pour accéder à a.example."));

    let info = lab.service.internal_info(&email("a@gmail.example")).await.unwrap().unwrap();
    assert_eq!((info.requires_invite, info.invited), (true, false));
    lab.service.store_invite(invitation("a@gmail.example")).await.unwrap();
    identity.check_allowed(&email("a@gmail.example")).await.unwrap();
    assert!(lab.service.internal_info(&email("a@gmail.example")).await.unwrap().unwrap().invited);
    // The neighbour was not invited.
    assert!(identity.check_allowed(&email("b@gmail.example")).await.is_err());
}

#[tokio::test]
async fn info_tells_where_the_account_is_and_where_it_should_be() {
    let lab = Lab::new().await;
    let info = |address: &'static str| lab.service.info(Box::leak(Box::new(email(address))));
    assert_eq!(info("a@x.fr").await.unwrap(), None);
    lab.identity().allow_list().add(&"x.fr".parse().unwrap(), "").await.unwrap();
    assert_eq!(info("a@x.fr").await.unwrap().unwrap().hs, SERVER);
    // The address of an account that was never bound is nobody's business.
    let new = NewUser {
        localpart: Some("dave".to_owned()),
        email: Some("dave@home.fr".to_owned()),
        ..NewUser::default()
    };
    lab.accounts.create_user(new).await.unwrap();
    assert_eq!(info("dave@home.fr").await.unwrap(), None);
    let map = lab.identity().map();
    map.put(&"x.fr".parse().unwrap(), &target("b.example", true)).await.unwrap();
    let told = serde_json::to_value(info("a@x.fr").await.unwrap().unwrap()).unwrap();
    assert_eq!(told, json!({ "hs": "b.example" }), "never whether an invitation is needed");
    lab.bound("a@x.fr", &bob()).await;
    map.put(&"x.fr".parse().unwrap(), &target("c.example", true)).await.unwrap();
    let told = serde_json::to_value(info("a@x.fr").await.unwrap().unwrap()).unwrap();
    assert_eq!(told, json!({ "hs": "b.example", "new_hs": "c.example" }));
    // A bind must fit the map.
    let sid = lab.session("b@x.fr").await;
    assert!(matches!(lab.service.bind(&sid, &lab.secret, &bob()).await, Err(Error::BindingNotPermitted)));
    lab.service.bind(&sid, &lab.secret, user_id!("@b:c.example")).await.unwrap();
}

#[tokio::test]
async fn the_map_is_imported_exported_and_changed_while_it_is_used() {
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let lab = Lab::with(Config::default(), store.clone(), 0).await;
    let map = lab.identity().map();
    let hs = |map: &chappe_identity::MapBook, address: &str| {
        map.map().target(&email(address)).map(|(target, _)| target.hs.to_string())
    };
    let file = "medium: {email: {entries: {'a@x.fr': {hs: a.fr}}, patterns: [{'.*': {hs: all.fr}}]}}";
    assert_eq!(map.import(file).await.unwrap(), (1, 1));
    assert_eq!(hs(map, "A@x.fr").as_deref(), Some("a.fr"));
    let bad = "medium: {email: {patterns: [{'a)|(b': {hs: all.fr}}]}}";
    assert!(matches!(map.import(bad).await, Err(Error::InvalidMap(_))));
    assert_eq!(hs(map, "b@x.fr").as_deref(), Some("all.fr"), "nothing was changed");
    let pattern = chappe_identity::MapPattern { regex: r".*@y\.fr".to_owned(), target: target("y.fr", true) };
    map.put_pattern(&pattern, Some(1)).await.unwrap();
    assert_eq!(hs(map, "b@y.fr").as_deref(), Some("y.fr"));
    map.put(&"*.sub.fr".parse().unwrap(), &target("sub.fr", false)).await.unwrap();
    let exported = map.export().await.unwrap();
    let again = Lab::with(Config::default(), store, 1).await;
    assert_eq!(hs(again.identity().map(), "b@y.fr").as_deref(), Some("y.fr"), "it is on disk");
    again.identity().map().import(&exported).await.unwrap();
    assert_eq!(again.identity().map().export().await.unwrap(), exported);
    assert!(
        map.remove_pattern(r".*@y\.fr").await.unwrap() && !map.remove_pattern(r".*@y\.fr").await.unwrap()
    );
    assert!(map.remove(&"a@x.fr".parse().unwrap()).await.unwrap());
    assert!(!map.remove(&"a@x.fr".parse().unwrap()).await.unwrap());
}

#[tokio::test]
async fn other_identity_servers_are_hosts_and_only_those_that_are_trusted() {
    let service = ServiceConfig {
        other_servers: false,
        names: vec!["id.a.example:8443".to_owned()],
        ..ServiceConfig::default()
    };
    let lab = Lab::serving(service).await;
    for own in ["a.example", "Matrix.A.example", "id.a.example:8443"] {
        assert!(lab.service.is_called(own), "{own}");
    }
    assert!(!lab.service.is_called("matrix.a.example:8443"));
    for wrong in
        ["", "x.fr/path", "a@x.fr", "x.fr?q", "x.fr#f", "https://x.fr", "x.fr\\y", "x.fr:port", "[::1"]
    {
        let refused = lab.service.server_without_token(wrong).err();
        assert!(matches!(refused, Some(Error::Invalid(_))), "{wrong:?}");
    }
    assert!(matches!(lab.service.server_without_token("x.fr").err(), Some(Error::NotTrusted)));
    // One's own name takes one's own token.
    lab.homeservers.users.lock().insert("good".to_owned(), bob());
    let token = lab.service.register(&openid("good", "b.example")).await.unwrap();
    assert!(lab.service.server_for(&bob(), "a.example", &token).await.is_ok());
    let eve = user_id!("@eve:a.example");
    assert!(matches!(
        lab.service.server_for(eve, "a.example", &token).await.err(),
        Some(Error::Unauthorized(_))
    ));
}

#[test]
fn secrets_are_not_shown() {
    assert!(!format!("{:?}", openid("hunter2", "b.example")).contains("hunter2"));
}
