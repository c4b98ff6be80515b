//! Invitations that wait for an address.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use chappe_identity::{Config, Error, HomeserverError, ServiceConfig};
use serde_json::json;

use crate::{BOB, Lab, SERVER, bob, email, invitation, memory};

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
    let store = memory();
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
async fn invitations_end_and_are_rationed() {
    let store = memory();
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
async fn a_clock_that_runs_ahead_takes_no_invitation_away() {
    let lab = Lab::new().await;
    lab.service.store_invite(invitation("bob@b.fr")).await.unwrap();
    lab.world.set_clock_ahead(Duration::from_hours(24 * 365));
    lab.service.work().await.unwrap();
    assert!(!lab.identity().is_invited(&email("bob@b.fr")).await.unwrap(), "reading follows the clock");
    lab.world.set_clock_ahead(Duration::ZERO);
    assert!(lab.identity().is_invited(&email("bob@b.fr")).await.unwrap());
    lab.bound("bob@b.fr", &bob()).await;
    lab.service.work().await.unwrap();
    assert_eq!(lab.homeservers.news.lock().len(), 1);
}

#[tokio::test]
async fn an_address_waits_for_so_many_invitations_and_one_that_was_not_mailed_does_not_wait() {
    let service = ServiceConfig { invites_per_sender: 0, ..ServiceConfig::default() };
    let store = memory();
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
