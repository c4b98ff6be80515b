//! Hashes from another server.

use std::collections::BTreeSet;

use chappe_kv::{Db, Memory};
use chappe_store::{
    Store,
    accounts::{PasswordCosts, Passwords},
};

use super::{on, server_with};
use crate::{Error, NewUser};

/// The bcrypt hash of "correct horse battery" with "sel" behind.
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu564x.J1ktbVuRH6YZWLq0Uo/UROOh.O";

#[tokio::test]
async fn a_bcrypt_hash_is_replaced_when_its_user_logs_in() {
    let config = r#"{ "password": { "memory_kib": 8, "passes": 1, "bcrypt_pepper": "sel" } }"#;
    let accounts = server_with(|section| *section = serde_json::from_str(config).unwrap());
    let new = NewUser {
        localpart: Some("jean".to_owned()),
        password_hash: Some(BCRYPT.to_owned()),
        ..NewUser::default()
    };
    let user = accounts.create_user(new).await.unwrap();
    let kept = async || accounts.store().read().get::<Passwords>(&user).await.unwrap().unwrap();
    assert!(matches!(accounts.verify_password(&user, "another").await, Err(Error::Forbidden(_))));
    assert_eq!(kept().await, BCRYPT);
    accounts.verify_password(&user, "correct horse battery").await.unwrap();
    assert!(kept().await.starts_with("$argon2id$"));
    accounts.verify_password(&user, "correct horse battery").await.unwrap();
    let bad = NewUser { password_hash: Some("secret".to_owned()), ..NewUser::default() };
    assert!(matches!(accounts.create_user(bad).await, Err(Error::Invalid(_))));
}

async fn imported(accounts: &crate::Accounts, name: &str, password: &[u8]) -> ruma::OwnedUserId {
    let hash = bcrypt::hash(&password[..password.len().min(72)], 4).unwrap();
    let new = NewUser { localpart: Some(name.to_owned()), password_hash: Some(hash), ..NewUser::default() };
    accounts.create_user(new).await.unwrap()
}

#[tokio::test]
async fn nobody_is_shut_out_by_how_a_password_was_typed_the_first_time() {
    let accounts = server_with(|section| (section.password.memory_kib, section.password.passes) = (8, 1));
    let (composed, apart) = ("caf\u{e9} cr\u{e8}me", "cafe\u{301} cre\u{300}me");
    let anna = imported(&accounts, "anna", composed.as_bytes()).await;
    for typed in [apart, composed, apart] {
        accounts.verify_password(&anna, typed).await.unwrap();
    }
    // Only the first 72 bytes were ever looked at.
    let long = "é".repeat(40);
    let zoe = imported(&accounts, "zoe", long.as_bytes()).await;
    for typed in [format!("{long}, mistyped"), long.clone(), "é".repeat(300)] {
        accounts.verify_password(&zoe, &typed).await.unwrap();
    }
    assert!(accounts.verify_password(&zoe, &"é".repeat(35)).await.is_err());
    let new = "\u{212b} and nine more letters";
    accounts.set_password(&zoe, new, crate::OtherDevices::Keep).await.unwrap();
    accounts.verify_password(&zoe, &new.replace('\u{212b}', "A\u{30a}")).await.unwrap();
}

#[tokio::test]
async fn a_hash_of_what_was_typed_stays_good() {
    let accounts = server_with(|section| (section.password.memory_kib, section.password.passes) = (8, 1));
    let (typed, user) = ("cafe\u{301} au lait", super::user(&accounts, "old").await);
    let salt = argon2::password_hash::SaltString::encode_b64(b"0123456789abcdef").unwrap();
    let argon = argon2::Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        accounts.config().password.cost().unwrap(),
    );
    let hash = argon2::PasswordHasher::hash_password(&argon, typed.as_bytes(), &salt).unwrap().to_string();
    let mut tx = chappe_store::Tx::new();
    tx.put::<Passwords>(&user, &hash);
    accounts.store().commit(tx).await.unwrap();
    accounts.verify_password(&user, typed).await.unwrap();
}

#[tokio::test]
async fn the_costs_of_hashes_are_known_as_long_as_there_are_such() {
    let store = Store::new(Db::new(Memory::default()));
    let known = async || store.read().get::<PasswordCosts>(&()).await.unwrap().unwrap_or_default().0;
    let costs = |all: &[&str]| all.iter().map(|cost| (*cost).to_owned()).collect::<BTreeSet<String>>();
    let (cheap, today) = ("$argon2id$v=19$m=8,t=1,p=1$", "$argon2id$v=19$m=16,t=1,p=1$");
    let alice = super::user(&on(&store, |_| {}), "alice").await;

    // A dearer cost than that of the hashes there are.
    let accounts = on(&store, |config| config.password.memory_kib = 16);
    accounts.settle_password_costs().await.unwrap();
    assert_eq!(known().await, costs(&[cheap, today]));
    accounts.verify_password(&alice, "alice's password").await.unwrap();
    accounts.settle_password_costs().await.unwrap();
    assert_eq!(known().await, costs(&[today]));

    let anna = imported(&accounts, "anna", b"correct horse").await;
    let (hash, name) = (format!("{cheap}c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"), "paul".to_owned());
    let new = NewUser { localpart: Some(name), password_hash: Some(hash), ..NewUser::default() };
    let paul = accounts.create_user(new).await.unwrap();
    assert_eq!(known().await, costs(&["$2b$04$", cheap, today]));
    accounts.verify_password(&anna, "correct horse").await.unwrap();
    accounts.set_password(&paul, "another password", crate::OtherDevices::Keep).await.unwrap();
    accounts.settle_password_costs().await.unwrap();
    assert_eq!(known().await, costs(&[today]));
}

#[tokio::test]
async fn hashes_of_ever_more_costs_are_not_brought_here() {
    let accounts = server_with(|config| config.password.memory_kib = 100);
    let bring = async |memory: u32| {
        let hash = format!("$argon2id$v=19$m={memory},t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA");
        let name = Some(format!("user{memory}"));
        accounts
            .create_user(NewUser { localpart: name, password_hash: Some(hash), ..NewUser::default() })
            .await
    };
    for memory in 8..14 {
        bring(memory).await.unwrap();
    }
    assert!(matches!(bring(14).await, Err(Error::TooMany(_))));
    super::user(&accounts, "alice").await;
}
