//! Hashes from another server.

use chappe_store::accounts::Passwords;

use super::server_with;
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
