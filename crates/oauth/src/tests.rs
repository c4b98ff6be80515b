//! What ends with time, on the memory engine in a fake world.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use chappe_accounts::{Accounts, AccountsConfig, NewUser};
use chappe_identity::{
    Config as IdentityConfig, Elsewhere, HomeserverError, Homeservers, Identity, IdentityServer,
    IdentityService, Registration, ServiceDeps, Site, Sso, SsoConfig, SsoDeps,
};
use chappe_kv::{Db, Memory};
use chappe_rules::build::SigningKey;
use chappe_store::{Direction, Store, oauth::OAuthExpiries};
use chappe_web::{Origin, Rate, RateLimiter};
use chappe_world::{Fake, FakeNet, World};
use ruma::{OwnedUserId, ServerName, UserId, owned_server_name};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::{
    Config, Deps, LogInCounts, OAuth, codes::Shown, fields::Fields, metadata::Metadata,
    request::Authorization, secrets::sha256,
};

const PASSWORD: &str = "correct horse battery";

async fn server() -> (OAuth, OwnedUserId) {
    let store = Store::new(Db::new(Memory::default()));
    let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
    let mut config = AccountsConfig::default();
    config.password.memory_kib = 8;
    config.password.passes = 1;
    let server = owned_server_name!("hs1");
    let accounts = Accounts::new(store.clone(), world.clone(), server.clone(), config);
    let site = Site { server_name: server, public_baseurl: "https://hs1/".to_owned() };
    let identity =
        Identity::new(store.clone(), world.clone(), None, IdentityConfig::default(), site).await.unwrap();
    let new = NewUser {
        localpart: Some("alice".to_owned()),
        password: Some(PASSWORD.to_owned()),
        ..NewUser::default()
    };
    let alice = accounts.create_user(new).await.unwrap();
    let key = Arc::new(SigningKey::from_seed([3; 32], "k").unwrap());
    let deps = ServiceDeps { identity, accounts: accounts.clone(), key, homeservers: Arc::new(Alone) };
    let service = IdentityService::new(deps);
    let sso = Sso::new(SsoDeps {
        world: world.clone(),
        accounts: accounts.clone(),
        service: service.clone(),
        config: SsoConfig::default(),
        secrets: BTreeMap::new(),
    });
    let log_ins = LogInCounts {
        limiter: RateLimiter::default(),
        by_ip: Rate::UNLIMITED,
        by_account: Rate::UNLIMITED,
        sign_ups: Rate::UNLIMITED,
    };
    let (leave_rooms, registration) = (Arc::new(|_| {}), Registration::default());
    let config = Config { enabled: true, max_clients: 3, ..Config::default() };
    let deps = Deps { store, world, accounts, service, sso, registration, log_ins, leave_rooms, config };
    (OAuth::new(deps), alice)
}

/// Nobody is there.
struct Alone;

#[async_trait]
impl Homeservers for Alone {
    async fn openid_user(&self, _: &ServerName, _: &str) -> Result<OwnedUserId, HomeserverError> {
        Err(HomeserverError::Unreachable)
    }

    async fn onbind(&self, _: &UserId, _: Value) -> Result<(), HomeserverError> {
        Err(HomeserverError::Unreachable)
    }

    async fn tell(&self, _: &ServerName, _: Value) -> Result<(), HomeserverError> {
        Err(HomeserverError::Unreachable)
    }

    fn identity_server(&self, _: Elsewhere) -> Arc<dyn IdentityServer> {
        panic!("nobody is asked here")
    }
}

fn written(name: &str) -> Metadata {
    let written = json!({ "client_uri": "https://example.com/", "client_name": name,
        "application_type": "native", "redirect_uris": ["com.example:/"] });
    Metadata::parse(written.as_object().unwrap(), false).unwrap()
}

async fn client(oauth: &OAuth, name: &str) -> String {
    oauth.register(&written(name)).await.unwrap()
}

async fn asked(oauth: &OAuth, client: &str) -> Authorization {
    let query = format!(
        "client_id={client}&redirect_uri=com.example%3A%2F&response_type=code&code_challenge_method=S256\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
         &scope=urn%3Amatrix%3Aclient%3Aapi%3A*+urn%3Amatrix%3Aclient%3Adevice%3AA"
    );
    oauth.authorization(&Fields::parse(query.as_bytes()).unwrap()).await.unwrap()
}

fn shown(code: &str) -> Shown<'_> {
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    Shown { code, redirect_uri: "com.example:/", verifier }
}

#[tokio::test]
async fn a_code_is_good_for_a_minute_and_stored_as_a_hash() {
    let (oauth, alice) = server().await;
    let id = client(&oauth, "App").await;
    let registered = oauth.client(&id).await.unwrap();
    let authorization = asked(&oauth, &id).await;
    tokio::time::pause();
    let late = oauth.code(&authorization, &alice, None).await.unwrap();
    advance(Duration::from_mins(1)).await;
    assert_eq!(oauth.redeem(&registered, shown(&late)).await.unwrap_err().code(), "invalid_grant");
    let code = oauth.code(&authorization, &alice, None).await.unwrap();
    advance(Duration::from_secs(59)).await;
    oauth.redeem(&registered, shown(&code)).await.unwrap();
    let rows =
        oauth.store().read().scan::<chappe_store::oauth::Codes>(&(), Direction::Forward, 9).await.unwrap();
    let keys: Vec<[u8; 32]> = rows.iter().map(|(key, _)| *key).collect();
    assert!(keys.contains(&sha256(&code)) && !format!("{rows:?}").contains(&code));
}

#[tokio::test]
async fn a_browser_is_logged_out_after_its_time() {
    let (oauth, alice) = server().await;
    let origin = Origin([127, 0, 0, 1].into());
    let proved = oauth.prove(origin, "alice", PASSWORD).await.unwrap();
    assert_eq!(proved.user, alice);
    tokio::time::pause();
    let cookie = oauth.open_browser(proved, Some(300_000)).await.unwrap();
    let looked = async || oauth.browser_user(&cookie).await.unwrap();
    assert!(looked().await.unwrap().proved);
    advance(Duration::from_mins(5)).await;
    assert!(!looked().await.unwrap().proved, "an old proof is none");
    advance(Duration::from_secs(3299)).await;
    assert_eq!(looked().await.unwrap().user, alice);
    advance(Duration::from_secs(1)).await;
    assert!(looked().await.is_none());
}

#[tokio::test]
async fn the_client_that_was_unused_for_longest_gives_way() {
    let (oauth, alice) = server().await;
    tokio::time::pause();
    let used = client(&oauth, "Used").await;
    let code = oauth.code(&asked(&oauth, &used).await, &alice, None).await.unwrap();
    oauth.redeem(&oauth.client(&used).await.unwrap(), shown(&code)).await.unwrap();
    let old = client(&oauth, "Old").await;
    advance(Duration::from_secs(1)).await;
    let young = client(&oauth, "Young").await;
    let registered = async |name: &str| oauth.register(&written(name)).await;
    assert_eq!(registered("Early").await.unwrap_err().code(), "temporarily_unavailable");
    advance(Duration::from_mins(10)).await;
    registered("New").await.unwrap();
    assert_eq!(oauth.client(&old).await.unwrap_err().code(), "invalid_client");
    for there in [&used, &young] {
        oauth.client(there).await.unwrap();
    }
    registered("Newer").await.unwrap();
    assert_eq!(oauth.client(&young).await.unwrap_err().code(), "invalid_client");
    oauth.client(&used).await.unwrap();
    let counts =
        oauth.store().read().scan::<chappe_store::oauth::OAuthCounts>(&(), Direction::Forward, 9).await;
    assert_eq!(counts.unwrap(), [("clients".to_owned(), 3)]);
}

#[tokio::test]
async fn clients_that_nobody_uses_go_and_others_stay() {
    let (oauth, alice) = server().await;
    let (used, unused) = (client(&oauth, "Used").await, client(&oauth, "Unused").await);
    let registered = oauth.client(&used).await.unwrap();
    let code = oauth.code(&asked(&oauth, &used).await, &alice, None).await.unwrap();
    let (issued, _) = oauth.redeem(&registered, shown(&code)).await.unwrap();
    let origin = Origin([127, 0, 0, 1].into());
    let proved = oauth.prove(origin, "alice", PASSWORD).await.unwrap();
    let _cookie = oauth.open_browser(proved, None).await.unwrap();
    tokio::time::pause();
    let a_day = Duration::from_hours(25);
    advance(Duration::from_hours(20)).await;
    oauth.sweep().await.unwrap();
    oauth.client(&unused).await.unwrap();
    advance(a_day).await;
    oauth.sweep().await.unwrap();
    assert_eq!(oauth.client(&unused).await.unwrap_err().code(), "invalid_client");
    oauth.client(&used).await.unwrap();
    advance(a_day).await;
    oauth.sweep().await.unwrap();
    oauth.client(&used).await.unwrap();

    oauth.accounts().revoke(&issued.access_token).await.unwrap();
    oauth.sweep().await.unwrap();
    assert!(oauth.accounts().device(&alice, "A".into()).await.unwrap().is_some(), "an expired token");
    oauth.accounts().revoke(&issued.refresh_token.unwrap()).await.unwrap();
    advance(a_day).await;
    oauth.sweep().await.unwrap();
    assert_eq!(oauth.client(&used).await.unwrap_err().code(), "invalid_client");
    let left = oauth.store().read().scan::<OAuthExpiries>(&(), Direction::Forward, 9).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    // There is room again: the count went down with them.
    let counts =
        oauth.store().read().scan::<chappe_store::oauth::OAuthCounts>(&(), Direction::Forward, 9).await;
    assert_eq!(counts.unwrap(), [("clients".to_owned(), 0)]);
}

#[tokio::test]
async fn a_refresh_token_of_a_session_logged_out_softly_ends_nothing() {
    let (oauth, alice) = server().await;
    let id = client(&oauth, "App").await;
    let registered = oauth.client(&id).await.unwrap();
    let code = oauth.code(&asked(&oauth, &id).await, &alice, None).await.unwrap();
    let (issued, _) = oauth.redeem(&registered, shown(&code)).await.unwrap();
    oauth.accounts().soft_log_out_all(&alice).await.unwrap();
    let refused = oauth.accounts().refresh_for(&registered.digest, &issued.refresh_token.unwrap()).await;
    assert!(refused.is_err());
    assert_eq!(oauth.accounts().devices(&alice).await.unwrap().len(), 1, "the device keeps its keys");
}
