//! Addresses that are bound to users, and how they are found.

use chappe_accounts::{Erase, NewUser};
use chappe_identity::{Config, Error, Purpose, TokenRequest};
use ruma::{OwnedClientSecret, user_id};
use serde_json::json;

use crate::{BOB, Lab, SERVER, bob, email, invitation, memory};

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
    let store = memory();
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
