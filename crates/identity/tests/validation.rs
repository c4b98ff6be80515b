//! Validation of addresses from request to use, with a mailer that keeps what it is given.
#![expect(clippy::unwrap_used, reason = "a test that goes wrong should stop at once")]

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use chappe_accounts::{Accounts, AccountsConfig, NewUser};
use chappe_identity::{
    Addresses, Config, Error, Identity, Mail, MailError, Mailer, Post, Purpose, Site, TokenRequest, Validated,
};
use chappe_kv::Memory;
use chappe_store::{
    Json, Store, Tx,
    accounts::{Passwords, ThreepidOwners},
    identity::Validations,
};
use chappe_world::{Fake, FakeNet, World};
use parking_lot::Mutex;
use ruma::{OwnedClientSecret, OwnedSessionId, owned_server_name};

#[derive(Default)]
struct Kept {
    mails: Mutex<Vec<Mail>>,
    broken: AtomicBool,
}

#[async_trait]
impl Mailer for Kept {
    async fn send(&self, mail: Mail) -> Result<(), MailError> {
        if self.broken.load(Relaxed) {
            return Err(MailError::Relay("down".to_owned()));
        }
        self.mails.lock().push(mail);
        Ok(())
    }
}

struct Lab {
    identity: Identity,
    store: Store,
    mailer: Arc<Kept>,
    secret: OwnedClientSecret,
}

impl Lab {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let store = Store::new(chappe_kv::Db::new(Memory::default()));
        let lab = Self::at(0, store, config).await;
        lab.identity.allow_list().add(&"gouv.fr".parse().unwrap(), "").await.unwrap();
        lab
    }

    /// On a store that is there already, so many milliseconds later.
    async fn at(later_ms: u64, store: Store, config: Config) -> Self {
        let mut fake = Fake::new("hs", 1 + later_ms, &FakeNet::default());
        fake.epoch_ms += later_ms;
        let world = World::fake(fake);
        let mailer = Arc::new(Kept::default());
        let site = Site {
            server_name: owned_server_name!("agent.example.gouv.fr"),
            public_baseurl: "https://matrix.example.gouv.fr/".to_owned(),
        };
        let identity = Identity::new(store.clone(), world, Some(Post::plain(mailer.clone())), config, site)
            .await
            .unwrap();
        Self { identity, store, mailer, secret: "secret-1".try_into().unwrap() }
    }

    fn request<'a>(&'a self, address: &'a str, send_attempt: u64) -> TokenRequest<'a> {
        TokenRequest {
            address,
            client_secret: &self.secret,
            send_attempt,
            next_link: None,
            ip: None,
            language: None,
        }
    }

    async fn ask(&self, address: &str, attempt: u64) -> Result<OwnedSessionId, Error> {
        self.identity.request_token(Purpose::Registration, self.request(address, attempt)).await
    }

    fn mails(&self) -> usize {
        self.mailer.mails.lock().len()
    }

    /// Waits for mails that go out behind the answer.
    async fn posted(&self, mails: usize) {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.mails(), mails);
    }

    async fn reset(&self, address: &str, attempt: u64) -> Result<OwnedSessionId, Error> {
        self.identity.request_token(Purpose::PasswordReset, self.request(address, attempt)).await
    }

    /// Session id and token of the link in the last mail.
    fn link(&self) -> (String, String) {
        let text = self.mailer.mails.lock().last().unwrap().text.clone();
        let link = text.lines().find(|line| line.starts_with("https://")).unwrap();
        assert!(link.starts_with("https://matrix.example.gouv.fr/_matrix/client/"), "{link}");
        let part = |key: &str| {
            let from = link.find(key).unwrap() + key.len();
            link[from..].split('&').next().unwrap().to_owned()
        };
        (part("sid="), part("token="))
    }

    /// The accounts of the same server.
    fn accounts(&self) -> Accounts {
        let (world, name) = (World::fake(Fake::new("hs", 2, &FakeNet::default())), self.identity.site());
        Accounts::new(self.store.clone(), world, name.server_name.clone(), AccountsConfig::default())
    }

    async fn bind(&self, address: &str) {
        let mut tx = Tx::default();
        let key = ("email".to_owned(), address.to_owned());
        tx.put::<ThreepidOwners>(&key, &"@somebody:agent.example.gouv.fr".to_owned());
        self.store.commit(tx).await.unwrap();
    }
}

fn signing_up(name: &str, proof: &Validated) -> NewUser {
    NewUser {
        localpart: Some(name.to_owned()),
        email: Some(proof.address.to_string()),
        validation: Some(proof.sid.to_string()),
        ..NewUser::default()
    }
}

#[tokio::test]
async fn an_address_is_validated_and_used_once() {
    let lab = Lab::new().await;
    let sid = lab.ask("Jean@GOUV.fr", 1).await.unwrap();
    assert_eq!(lab.mailer.mails.lock()[0].to.as_str(), "jean@gouv.fr");
    let verdict = || lab.identity.validated(Purpose::Registration, &sid, &lab.secret);
    assert!(matches!(verdict().await, Err(Error::NotValidated)));

    let (link_sid, token) = lab.link();
    assert_eq!(link_sid, sid.as_str());
    assert_eq!(lab.identity.pending(&link_sid, &token).await.unwrap().address.as_str(), "jean@gouv.fr");
    assert!(matches!(verdict().await, Err(Error::NotValidated)), "opening the link confirms nothing");
    lab.identity.confirm(&link_sid, &token).await.unwrap();
    lab.identity.confirm(&link_sid, &token).await.unwrap();

    let validated = verdict().await.unwrap();
    assert_eq!(validated.address.as_str(), "jean@gouv.fr");
    lab.accounts().create_user(signing_up("jean", &validated)).await.unwrap();
    assert!(matches!(verdict().await, Err(Error::NoSession)));
}

#[tokio::test]
async fn what_is_not_allowed_gets_no_mail() {
    let lab = Lab::new().await;
    for outside in ["a@example.com", "a@x.gouv.fr", "a@gouv.fr.evil.tld", "a@evilgouv.fr"] {
        assert!(matches!(lab.ask(outside, 1).await, Err(Error::Denied { .. })), "{outside}");
    }
    for hostile in ["a@evil.tld@gouv.fr", "\"a@evil\"@gouv.fr", "a@gouv.fr\n", "a@gouv.fr,b@x.fr"] {
        assert!(matches!(lab.ask(hostile, 1).await, Err(Error::InvalidEmail(_))), "{hostile:?}");
    }
    assert_eq!(lab.mails(), 0);
    let said = lab.ask("a@example.com", 1).await.unwrap_err().to_string();
    assert!(said.contains("a@example.com") && said.contains("autorisée") && said.contains("may not be used"));
}

#[tokio::test]
async fn a_verdict_needs_the_same_secret_and_purpose_and_an_address_still_allowed() {
    let lab = Lab::new().await;
    let sid = lab.ask("jean@gouv.fr", 1).await.unwrap();
    let (_, token) = lab.link();
    lab.identity.confirm(sid.as_str(), &token).await.unwrap();
    let other: OwnedClientSecret = "secret-2".try_into().unwrap();
    let verdict = lab.identity.validated(Purpose::Registration, &sid, &other).await;
    assert!(matches!(verdict, Err(Error::NoSession)));
    let verdict = lab.identity.validated(Purpose::PasswordReset, &sid, &lab.secret).await;
    assert!(matches!(verdict, Err(Error::NoSession)));
    lab.identity.allow_list().remove(&"gouv.fr".parse().unwrap()).await.unwrap();
    let verdict = lab.identity.validated(Purpose::Registration, &sid, &lab.secret).await;
    assert!(matches!(verdict, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn a_mail_is_sent_again_for_a_higher_attempt_only() {
    let lab = Lab::new().await;
    let sid = lab.ask("jean@gouv.fr", 1).await.unwrap();
    assert_eq!(lab.ask("jean@gouv.fr", 1).await.unwrap(), sid);
    assert_eq!(lab.mails(), 1);
    let (_, first) = lab.link();
    assert_eq!(lab.ask("jean@gouv.fr", 2).await.unwrap(), sid);
    assert_eq!(lab.mails(), 2);
    let (_, second) = lab.link();
    assert_ne!(first, second);
    lab.identity.confirm(sid.as_str(), &first).await.unwrap();
    assert_ne!(lab.ask("jeanne@gouv.fr", 1).await.unwrap(), sid, "another address, another session");
}

#[tokio::test]
async fn a_mail_that_did_not_go_out_is_sent_by_the_same_attempt() {
    let lab = Lab::new().await;
    lab.mailer.broken.store(true, Relaxed);
    assert!(matches!(lab.ask("jean@gouv.fr", 1).await, Err(Error::Mail(_))));
    lab.mailer.broken.store(false, Relaxed);
    lab.ask("jean@gouv.fr", 1).await.unwrap();
    assert_eq!(lab.mails(), 1);
}

#[tokio::test]
async fn mails_are_rationed_by_address_and_by_client() {
    let lab = Lab::with(Config { mails_per_ip: 3, ..Config::default() }).await;
    for attempt in 1..=5 {
        lab.ask("jean@gouv.fr", attempt).await.unwrap();
    }
    assert!(matches!(lab.ask("jean@gouv.fr", 6).await, Err(Error::TooMany { .. })));
    let from = |address, ip: &str| {
        let request = TokenRequest { ip: Some(ip.parse::<IpAddr>().unwrap()), ..lab.request(address, 1) };
        lab.identity.request_token(Purpose::Registration, request)
    };
    for address in ["a@gouv.fr", "b@gouv.fr", "c@gouv.fr"] {
        from(address, "2001:db8::1").await.unwrap();
    }
    assert!(matches!(from("d@gouv.fr", "2001:db8::2").await, Err(Error::TooMany { .. })), "the same /64");
    from("d@gouv.fr", "2001:db8:0:1::1").await.unwrap();
    from("e@gouv.fr", "192.0.2.1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_ends() {
    let config = Config { validation_hours: 1, ..Config::default() };
    let lab = Lab::with(config.clone()).await;
    let sid = lab.ask("jean@gouv.fr", 1).await.unwrap();
    let (_, token) = lab.link();
    let lab = Lab::at(3_600_000, lab.store, config).await;
    assert!(matches!(lab.identity.confirm(sid.as_str(), &token).await, Err(Error::NoSession)));
    let again = lab.ask("jean@gouv.fr", 1).await.unwrap();
    assert_ne!(again, sid);
    assert_eq!(lab.mails(), 1);
}

#[tokio::test]
async fn guessing_kills_the_session() {
    let lab = Lab::new().await;
    let sid = lab.ask("jean@gouv.fr", 1).await.unwrap();
    let (_, token) = lab.link();
    for _ in 0..10 {
        assert!(matches!(lab.identity.confirm(sid.as_str(), "guess").await, Err(Error::WrongToken)));
    }
    assert!(matches!(lab.identity.confirm(sid.as_str(), &token).await, Err(Error::NoSession)));
    assert!(matches!(lab.identity.pending("nothing", &token).await, Err(Error::NoSession)));
}

#[tokio::test]
async fn next_links_are_checked() {
    let lab =
        Lab::with(Config { next_link_hosts: vec!["tchap.example.fr".to_owned()], ..Config::default() }).await;
    let ask = |address, link| {
        let request = TokenRequest { next_link: Some(link), ..lab.request(address, 1) };
        lab.identity.request_token(Purpose::Registration, request)
    };
    for wrong in [
        "https://evil.tld/",
        "javascript:alert(1)",
        "https://tchap.example.fr@evil.tld/",
        "https://user@tchap.example.fr/",
        "//tchap.example.fr/",
        "https://tchap.example.fr.evil.tld/",
        "https://tchap.example.fr/\n",
        "ftp://tchap.example.fr/",
    ] {
        assert!(matches!(ask("a@gouv.fr", wrong).await, Err(Error::NextLink(_))), "{wrong}");
    }
    assert_eq!(lab.mails(), 0);
    ask("a@gouv.fr", "https://Tchap.example.fr/#/x?y=1").await.unwrap();
    assert!(matches!(ask("a@gouv.fr", "https://tchap.example.fr/other").await, Err(Error::NextLink(_))));
    ask("b@gouv.fr", "https://matrix.example.gouv.fr/").await.unwrap();
    let (sid, token) = lab.link();
    let confirmed = lab.identity.confirm(&sid, &token).await.unwrap();
    assert_eq!(confirmed.next_link.as_deref(), Some("https://matrix.example.gouv.fr/"));
}

#[tokio::test]
async fn addresses_in_use_and_unknown_ones() {
    let lab = Lab::new().await;
    lab.bind("jean@gouv.fr").await;
    lab.bind("old@closed.fr").await;
    assert!(matches!(lab.ask("JEAN@gouv.fr", 1).await, Err(Error::InUse)));
    let reset = |address| lab.identity.request_token(Purpose::PasswordReset, lab.request(address, 1));
    assert!(matches!(reset("jeanne@gouv.fr").await, Err(Error::UnknownAddress)));
    assert_eq!(lab.mails(), 0);
    reset("jean@gouv.fr").await.unwrap();
    reset("old@closed.fr").await.expect("an account keeps its address when its domain is closed");
    assert_eq!(lab.mails(), 2);
}

#[tokio::test]
async fn addresses_in_use_can_be_kept_from_strangers() {
    let lab = Lab::with(Config { hide_known_addresses: true, ..Config::default() }).await;
    lab.bind("jean@gouv.fr").await;
    lab.ask("jean@gouv.fr", 1).await.unwrap();
    lab.posted(1).await;
    assert!(lab.mailer.mails.lock()[0].text.contains("Connectez-vous"));
    assert!(!lab.mailer.mails.lock()[0].text.contains("token="));
    lab.reset("nobody@gouv.fr", 1).await.unwrap();
    lab.reset("jean@gouv.fr", 1).await.unwrap();
    lab.posted(2).await;
}

#[tokio::test]
async fn who_asks_for_a_new_password_does_not_learn_who_has_one() {
    let lab = Lab::with(Config { hide_known_addresses: true, ..Config::default() }).await;
    lab.bind("jean@gouv.fr").await;
    lab.mailer.broken.store(true, Relaxed);
    for address in ["jean@gouv.fr", "nobody@gouv.fr"] {
        for attempt in 1..=5 {
            lab.reset(address, attempt).await.unwrap();
        }
        assert!(matches!(lab.reset(address, 6).await, Err(Error::TooMany { .. })), "{address}");
    }
}

#[tokio::test]
async fn a_mail_that_does_not_go_out_behind_the_answer_is_sent_by_the_same_attempt() {
    let lab = Lab::with(Config { hide_known_addresses: true, ..Config::default() }).await;
    lab.bind("jean@gouv.fr").await;
    lab.mailer.broken.store(true, Relaxed);
    let sid = lab.reset("jean@gouv.fr", 1).await.unwrap();
    lab.posted(0).await;
    lab.mailer.broken.store(false, Relaxed);
    assert_eq!(lab.reset("jean@gouv.fr", 1).await.unwrap(), sid);
    lab.posted(1).await;
    // Mails that fail tell nothing: whoever asks again is counted in any case.
    lab.mailer.broken.store(true, Relaxed);
    for _ in 2..5 {
        lab.reset("jean@gouv.fr", 2).await.unwrap();
        lab.posted(1).await;
    }
    assert!(matches!(lab.reset("jean@gouv.fr", 2).await, Err(Error::TooMany { .. })));
    for _ in 0..5 {
        lab.reset("nobody@gouv.fr", 1).await.unwrap();
    }
    assert!(matches!(lab.reset("nobody@gouv.fr", 1).await, Err(Error::TooMany { .. })));
}

#[tokio::test]
async fn resets_of_before_passwords_were_noted_go_on() {
    let lab = Lab::new().await;
    let jean = ruma::owned_user_id!("@somebody:agent.example.gouv.fr");
    let set = async |phc: &str| {
        let mut tx = Tx::default();
        tx.put::<Passwords>(&jean, &phc.to_owned());
        lab.store.commit(tx).await.unwrap();
    };
    lab.bind("jean@gouv.fr").await;
    let (sid, secret) = (lab.reset("jean@gouv.fr", 1).await.unwrap(), &lab.secret);
    let (_, token) = lab.link();
    lab.identity.confirm(sid.as_str(), &token).await.unwrap();
    let verdict = async || lab.identity.validated(Purpose::PasswordReset, &sid, secret).await;
    verdict().await.unwrap();
    set("first").await;
    assert!(matches!(verdict().await, Err(Error::NoSession)), "there was none to be replaced");
    let row = sid.to_string();
    let Json(mut validation) = lab.store.read().get::<Validations>(&row).await.unwrap().unwrap();
    validation.password = None;
    let mut tx = Tx::default();
    tx.put::<Validations>(&row, &Json(validation));
    lab.store.commit(tx).await.unwrap();
    verdict().await.unwrap();
    assert_eq!(lab.reset("jean@gouv.fr", 1).await.unwrap(), sid);
}

#[tokio::test]
async fn a_new_password_ends_every_reset_that_was_asked_for_before() {
    let lab = Lab::new().await;
    let jean = ruma::owned_user_id!("@somebody:agent.example.gouv.fr");
    let set = async |phc: &str| {
        let mut tx = Tx::default();
        tx.put::<Passwords>(&jean, &phc.to_owned());
        lab.store.commit(tx).await.unwrap();
    };
    lab.bind("jean@gouv.fr").await;
    lab.bind("jean@perso.fr").await;
    set("old").await;
    let mut asked = Vec::new();
    for address in ["jean@gouv.fr", "jean@perso.fr"] {
        let sid = lab.reset(address, 1).await.unwrap();
        let (_, token) = lab.link();
        lab.identity.confirm(sid.as_str(), &token).await.unwrap();
        asked.push(sid);
    }
    let (identity, secret) = (&lab.identity, &lab.secret);
    let verdict = async |sid: OwnedSessionId| identity.validated(Purpose::PasswordReset, &sid, secret).await;
    verdict(asked[0].clone()).await.unwrap();
    set("new").await;
    for sid in asked.clone() {
        assert!(matches!(verdict(sid).await, Err(Error::NoSession)));
    }
    assert_ne!(lab.reset("jean@gouv.fr", 1).await.unwrap(), asked[0], "it begins anew");
}

#[tokio::test]
async fn any_address_where_the_configuration_says_so() {
    let lab = Lab::with(Config { addresses: Addresses::Any, ..Config::default() }).await;
    lab.ask("a@example.com", 1).await.unwrap();
}

#[tokio::test]
async fn names_follow_from_the_address() {
    let lab = Lab::new().await;
    let email = "Jean.Martin@dinum.gouv.fr".parse().unwrap();
    let naming = lab.identity.naming(&email).unwrap();
    assert_eq!(naming.display_name, "Jean Martin [Dinum]");
    assert_eq!(naming.user_ids[0], "@jean.martin-dinum.gouv.fr:agent.example.gouv.fr");
    assert_eq!(naming.user_ids[1], "@jean.martin-dinum.gouv.fr1:agent.example.gouv.fr");
    let long = format!("{}@{}.fr", "a".repeat(64), "b.".repeat(90) + "c");
    assert!(matches!(lab.identity.naming(&long.parse().unwrap()), Err(Error::NameTooLong)));
}
