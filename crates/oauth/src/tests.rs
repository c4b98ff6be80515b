//! What ends with time, on the memory engine in a fake world.

use std::{sync::Arc, time::Duration};

use chappe_accounts::{Accounts, AccountsConfig, NewUser};
use chappe_identity::{Config as IdentityConfig, Identity, Site};
use chappe_kv::{Db, Memory};
use chappe_store::{Direction, Store, oauth::OAuthExpiries};
use chappe_web::{Origin, Rate, RateLimiter};
use chappe_world::{Fake, FakeNet, World};
use ruma::{OwnedUserId, owned_server_name};
use serde_json::json;
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
    let log_ins =
        LogInCounts { limiter: RateLimiter::default(), by_ip: Rate::UNLIMITED, by_account: Rate::UNLIMITED };
    let leave_rooms = Arc::new(|_| {});
    let config = Config { enabled: true, ..Config::default() };
    let deps = Deps { store, world, accounts, identity, log_ins, leave_rooms, config };
    (OAuth::new(deps), alice)
}

async fn client(oauth: &OAuth, name: &str) -> String {
    let written = json!({ "client_uri": "https://example.com/", "client_name": name,
        "application_type": "native", "redirect_uris": ["com.example:/"] });
    let metadata = Metadata::parse(written.as_object().unwrap(), false).unwrap();
    oauth.register(&metadata).await.unwrap()
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
    let late = oauth.code(&authorization, &alice).await.unwrap();
    advance(Duration::from_mins(1)).await;
    assert_eq!(oauth.redeem(&registered, shown(&late)).await.unwrap_err().code(), "invalid_grant");
    let code = oauth.code(&authorization, &alice).await.unwrap();
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
    let cookie = oauth.open_browser(&proved).await.unwrap();
    advance(Duration::from_secs(3599)).await;
    assert_eq!(oauth.browser_user(&cookie).await.unwrap(), Some(alice.clone()));
    advance(Duration::from_secs(1)).await;
    assert_eq!(oauth.browser_user(&cookie).await.unwrap(), None);
}

#[tokio::test]
async fn clients_that_nobody_uses_go_and_others_stay() {
    let (oauth, alice) = server().await;
    let (used, unused) = (client(&oauth, "Used").await, client(&oauth, "Unused").await);
    let registered = oauth.client(&used).await.unwrap();
    let code = oauth.code(&asked(&oauth, &used).await, &alice).await.unwrap();
    let (issued, _) = oauth.redeem(&registered, shown(&code)).await.unwrap();
    let origin = Origin([127, 0, 0, 1].into());
    let proved = oauth.prove(origin, "alice", PASSWORD).await.unwrap();
    let _cookie = oauth.open_browser(&proved).await.unwrap();
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
    let code = oauth.code(&asked(&oauth, &id).await, &alice).await.unwrap();
    let (issued, _) = oauth.redeem(&registered, shown(&code)).await.unwrap();
    oauth.accounts().soft_log_out_all(&alice).await.unwrap();
    let refused = oauth.accounts().refresh_for(&registered.digest, &issued.refresh_token.unwrap()).await;
    assert!(refused.is_err());
    assert_eq!(oauth.accounts().devices(&alice).await.unwrap().len(), 1, "the device keeps its keys");
}
