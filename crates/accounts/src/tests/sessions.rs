//! Users, passwords, tokens, devices.

use std::time::Duration;

use chappe_kv::Db;
use chappe_store::{
    Json, Store, Tx,
    accounts::{DeviceTokens, Passwords},
    identity::{Purpose, Validation, Validations},
};
use chappe_world::{Outbound, World};
use futures_util::future::{join, join_all};
use ruma::{OwnedDeviceId, device_id, owned_server_name, thirdparty::Medium, user_id};

use super::{log_in, on, server, server_with, user, yielding::Yielding};
use crate::{
    Accounts, Erase, Error, LogIn, LogInMethod, NewUser, OAuthGrant, OAuthLogIn, OtherDevices, Refreshing,
    UserFilter, UserKind, tokens::FAMILY,
};

fn named(name: &str) -> NewUser {
    NewUser { localpart: Some(name.to_owned()), ..NewUser::default() }
}

async fn refreshable(accounts: &Accounts, device: &str) -> crate::Issued {
    let log_in = LogIn {
        user_id: user_id!("@alice:hs1").to_owned(),
        device_id: Some(OwnedDeviceId::from(device)),
        device_name: None,
        refreshing: Refreshing::Yes,
        by: None,
    };
    accounts.log_in(log_in).await.unwrap()
}

#[tokio::test]
async fn names_are_strict_unique_and_small() {
    let accounts = server_with(|config| config.reserved_names.push("admin".to_owned()));
    assert_eq!(accounts.create_user(named("Alice")).await.unwrap(), "@alice:hs1");
    assert!(matches!(accounts.create_user(named("alice")).await, Err(Error::UserInUse)));
    for bad in ["", "a b", "é", "a@b", "a:b", "a\n", "a!", &"x".repeat(300)] {
        assert!(matches!(accounts.create_user(named(bad)).await, Err(Error::InvalidUsername(_))), "{bad:?}");
    }
    for reserved in ["admin", "_server"] {
        assert!(matches!(accounts.create_user(named(reserved)).await, Err(Error::Reserved)), "{reserved}");
    }
    accounts.create_user(NewUser { kind: UserKind::System, ..named("_server") }).await.unwrap();
    accounts.create_user(NewUser { kind: UserKind::Guest, ..NewUser::default() }).await.unwrap();
    let filter = UserFilter { containing: Some("server".to_owned()), with_deactivated: false };
    assert_eq!(accounts.users(None, 10, &filter).await.unwrap().len(), 1);
    let all = accounts.users(Some(user_id!("@_server:hs1")), 10, &UserFilter::default()).await.unwrap();
    assert!(all.iter().all(|(id, _)| id != "@_server:hs1"));
    assert_eq!(accounts.local_user("@ALICE:hs1").unwrap(), "@alice:hs1");
    assert!(accounts.local_user("@alice:elsewhere").is_err());
}

#[tokio::test]
async fn an_address_belongs_to_one_account() {
    let accounts = server();
    let with_mail = |name| NewUser { email: Some("a@gouv.fr".to_owned()), ..named(name) };
    let alice = accounts.create_user(with_mail("alice")).await.unwrap();
    assert!(matches!(accounts.create_user(with_mail("bob")).await, Err(Error::ThreepidInUse)));
    let bob = accounts.create_user(named("bob")).await.unwrap();
    assert!(matches!(
        accounts.add_threepid(&bob, &Medium::Email, "a@gouv.fr", (1, None)).await,
        Err(Error::ThreepidInUse)
    ));
    assert_eq!(accounts.user_by_threepid(&Medium::Email, "a@gouv.fr").await.unwrap(), Some(alice.clone()));
    accounts.deactivate(&alice, Erase::No).await.unwrap();
    accounts.add_threepid(&bob, &Medium::Email, "a@gouv.fr", (1, None)).await.unwrap();
    assert_eq!(accounts.threepids(&bob).await.unwrap().len(), 1);
    assert!(accounts.remove_threepid(&bob, &Medium::Email, "a@gouv.fr").await.unwrap());
    assert_eq!(accounts.user_by_threepid(&Medium::Email, "a@gouv.fr").await.unwrap(), None);
}

#[tokio::test]
async fn a_registration_token_makes_as_many_accounts_as_it_says() {
    let accounts = server();
    accounts.create_registration_token(Some("t".to_owned()), Some(1), None).await.unwrap();
    assert!(accounts.create_registration_token(Some("t".to_owned()), None, None).await.is_err());
    let with_token = |name| NewUser { registration_token: Some("t".to_owned()), ..named(name) };
    accounts.create_user(with_token("alice")).await.unwrap();
    assert!(matches!(accounts.create_user(with_token("bob")).await, Err(Error::Forbidden(_))));
    assert!(!accounts.registration_token_valid("t").await.unwrap());
    accounts.update_registration_token("t", |token| token.uses_allowed = Some(2)).await.unwrap();
    accounts.create_user(with_token("bob")).await.unwrap();
    assert_eq!(accounts.registration_token("t").await.unwrap().unwrap().0.completed, 2);
}

#[tokio::test]
async fn passwords_are_verified_and_refusals_look_alike() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    accounts.verify_password(&alice, "alice's password").await.unwrap();
    let refusal = |outcome: Result<(), Error>| match outcome {
        Err(Error::Forbidden(sentence)) => sentence,
        other => panic!("{other:?}"),
    };
    let wrong = refusal(accounts.verify_password(&alice, "alice's Password").await);
    let unknown = refusal(accounts.verify_password(user_id!("@nobody:hs1"), "alice's password").await);
    let long = refusal(accounts.verify_password(&alice, &"x".repeat(10_000_000)).await);
    accounts.deactivate(&alice, Erase::No).await.unwrap();
    let closed = refusal(accounts.verify_password(&alice, "alice's password").await);
    assert!(wrong == unknown && wrong == long && wrong == closed);
    let short = NewUser { password: Some("short".to_owned()), ..named("bob") };
    assert!(matches!(accounts.create_user(short).await, Err(Error::WeakPassword(_))));
}

#[tokio::test]
async fn a_hash_gets_the_configured_cost_at_the_next_log_in() {
    let store = Store::new(Db::new(chappe_kv::Memory::default()));
    let alice = user(&on(&store, |_| {}), "alice").await;
    let dear = on(&store, |config| config.password.passes = 3);
    let stored = async || store.read().get::<Passwords>(&alice).await;
    let first = stored().await.unwrap().unwrap();
    assert!(dear.verify_password(&alice, "something else").await.is_err());
    assert_eq!(stored().await.unwrap().unwrap(), first, "a wrong password renews nothing");
    dear.verify_password(&alice, "alice's password").await.unwrap();
    let second = stored().await.unwrap().unwrap();
    assert!(first.contains("m=8,t=1,p=1") && second.contains("m=8,t=3,p=1"), "{first} {second}");
    dear.verify_password(&alice, "alice's password").await.unwrap();
    assert_eq!(stored().await.unwrap().unwrap(), second, "once is enough");
}

#[tokio::test]
async fn a_closed_account_is_to_leave_its_rooms_until_it_has_or_opens_again() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    accounts.deactivate(&alice, Erase::No).await.unwrap();
    accounts.deactivate(&bob, Erase::Yes).await.unwrap();
    let departing = async || accounts.departing().await.unwrap().into_iter().map(|(user, _)| user);
    assert!(departing().await.eq([alice.clone(), bob.clone()]));
    accounts.reactivate(&alice).await.unwrap();
    accounts.departed(&bob).await.unwrap();
    assert_eq!(departing().await.count(), 0);
}

#[tokio::test]
async fn a_new_password_logs_the_others_out() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let (one, two) = (log_in(&accounts, &alice, "ONE").await, log_in(&accounts, &alice, "TWO").await);
    accounts.authenticate(&two.access_token).await.unwrap();
    let others = OtherDevices::LogOutExcept(Some(device_id!("ONE")));
    accounts.set_password(&alice, "another password", others).await.unwrap();
    accounts.authenticate(&one.access_token).await.unwrap();
    assert!(matches!(
        accounts.authenticate(&two.access_token).await,
        Err(Error::UnknownToken { soft_logout: false })
    ));
    assert!(accounts.verify_password(&alice, "alice's password").await.is_err());
    accounts.verify_password(&alice, "another password").await.unwrap();
}

/// A validation of an address, as identity keeps it once the mail's link was followed.
async fn proof(accounts: &Accounts, sid: &str, purpose: Purpose) {
    let validation = Validation {
        address: "a@gouv.fr".to_owned(),
        purpose,
        secret: [0; 32],
        sent_attempt: 1,
        tokens: Vec::new(),
        next_link: None,
        expires_at: u64::MAX,
        validated: true,
        validated_at: None,
        failures: 0,
        password: None,
    };
    let mut tx = Tx::new();
    tx.put::<Validations>(&sid.to_owned(), &Json(validation));
    accounts.store().commit(tx).await.unwrap();
}

#[tokio::test]
async fn a_proof_of_an_address_is_used_up_by_what_it_was_given_for() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    proof(&accounts, "reset", Purpose::PasswordReset).await;
    let reset =
        async |password: &str| accounts.reset_password(&alice, password, OtherDevices::Keep, "reset").await;
    assert!(matches!(reset("short").await, Err(Error::WeakPassword(_))), "and stays good");
    reset("a new password").await.unwrap();
    assert!(matches!(reset("a thief's password").await, Err(Error::Forbidden(_))));
    accounts.verify_password(&alice, "a new password").await.unwrap();

    proof(&accounts, "sign-up", Purpose::Registration).await;
    let new = |name: &str, email: &str| NewUser {
        email: Some(email.to_owned()),
        validation: Some("sign-up".to_owned()),
        ..named(name)
    };
    assert!(matches!(accounts.create_user(new("alice", "a@gouv.fr")).await, Err(Error::UserInUse)));
    accounts.create_user(new("bob", "a@gouv.fr")).await.unwrap();
    assert!(matches!(accounts.create_user(new("carol", "b@gouv.fr")).await, Err(Error::Forbidden(_))));

    proof(&accounts, "add", Purpose::AddToAccount).await;
    let add =
        async |address: &str| accounts.add_threepid(&alice, &Medium::Email, address, (1, Some("add"))).await;
    assert!(matches!(add("a@gouv.fr").await, Err(Error::ThreepidInUse)), "and stays good");
    add("c@gouv.fr").await.unwrap();
    assert!(matches!(add("d@gouv.fr").await, Err(Error::Forbidden(_))));
    assert_eq!(accounts.threepids(&alice).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_account_is_opened_again_with_its_address_or_not_at_all() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    accounts.add_threepid(&bob, &Medium::Email, "a@gouv.fr", (1, None)).await.unwrap();
    accounts.deactivate(&alice, Erase::No).await.unwrap();
    let taken = accounts.reactivate_with(&alice, Some("a@gouv.fr")).await;
    assert!(matches!(taken, Err(Error::ThreepidInUse)));
    assert!(accounts.user(&alice).await.unwrap().unwrap().deactivated.is_some());
    accounts.reactivate_with(&alice, Some("b@gouv.fr")).await.unwrap();
    let owner = accounts.user_by_threepid(&Medium::Email, "b@gouv.fr").await.unwrap();
    assert_eq!(owner.as_ref(), Some(&alice));
}

#[tokio::test]
async fn who_hangs_up_leaves_no_room_for_more_hashes_than_there_may_be() {
    let mut config = crate::AccountsConfig::default();
    (config.password.passes, config.password.at_once, config.password.waiting) = (50, 1, 0);
    let world = World::real(&Outbound::default()).unwrap();
    let store = Store::new(Db::new(chappe_kv::Memory::default()));
    let accounts = Accounts::new(store, world, owned_server_name!("hs1"), config);
    let hashing = accounts.hash_password("a long password");
    assert!(tokio::time::timeout(Duration::from_millis(20), hashing).await.is_err(), "it takes longer");
    assert!(matches!(accounts.hash_password("a long password").await, Err(Error::Busy)));
    let _free = accounts.inner.hashing.places.acquire().await.unwrap();
}

#[tokio::test]
async fn choosing_passwords_and_logging_in_do_not_wait_for_each_other() {
    let accounts = server_with(|config| {
        (config.password.memory_kib, config.password.passes) = (8, 1);
        config.password.policy.minimum_strength = 3;
    });
    let new = NewUser {
        localpart: Some("alice".to_owned()),
        password: Some("gQ7#vbn2LmX0s".to_owned()),
        ..NewUser::default()
    };
    let alice = accounts.create_user(new).await.unwrap();
    let everybody = u32::try_from(accounts.inner.estimates.queue.available_permits()).unwrap();
    let crowd = accounts.inner.estimates.queue.acquire_many(everybody).await.unwrap();
    accounts.verify_password(&alice, "gQ7#vbn2LmX0s").await.unwrap();
    let chosen = || accounts.check_password("correct horse battery staple", Vec::new());
    assert!(matches!(chosen().await, Err(Error::Busy)));
    drop(crowd);
    let everybody = u32::try_from(accounts.inner.hashing.queue.available_permits()).unwrap();
    let _crowd = accounts.inner.hashing.queue.acquire_many(everybody).await.unwrap();
    chosen().await.unwrap();
}

#[tokio::test]
async fn tokens_end_at_once_though_they_were_cached() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let token = log_in(&accounts, &alice, "ONE").await.access_token;
    let requester = accounts.authenticate(&token).await.unwrap();
    assert_eq!((requester.user_id.as_str(), requester.device().unwrap().as_str()), ("@alice:hs1", "ONE"));
    assert!(!requester.admin);

    accounts.update_user(&alice, |record| record.admin = true).await.unwrap();
    accounts.authenticate(&token).await.unwrap().must_be_admin().unwrap();
    accounts.update_user(&alice, |record| record.suspended = true).await.unwrap();
    assert!(matches!(accounts.authenticate(&token).await.unwrap().may_act(), Err(Error::Suspended)));
    accounts.update_user(&alice, |record| record.locked = true).await.unwrap();
    assert!(matches!(accounts.authenticate(&token).await, Err(Error::Locked)));
    accounts.authenticate_leaving(&token).await.unwrap();
    accounts.update_user(&alice, |record| record.locked = false).await.unwrap();
    accounts.authenticate(&token).await.unwrap();

    accounts.log_out(&alice, device_id!("ONE")).await.unwrap();
    assert!(matches!(accounts.authenticate(&token).await, Err(Error::UnknownToken { soft_logout: false })));

    let token = log_in(&accounts, &alice, "TWO").await.access_token;
    accounts.authenticate(&token).await.unwrap();
    accounts.soft_log_out_all(&alice).await.unwrap();
    assert!(matches!(accounts.authenticate(&token).await, Err(Error::UnknownToken { soft_logout: true })));
    assert_eq!(accounts.devices(&alice).await.unwrap().len(), 1);

    let again = log_in(&accounts, &alice, "TWO").await.access_token;
    accounts.authenticate(&again).await.unwrap();
    assert!(matches!(accounts.authenticate(&token).await, Err(Error::UnknownToken { soft_logout: false })));
    accounts.deactivate(&alice, Erase::Yes).await.unwrap();
    assert!(accounts.authenticate(&again).await.is_err());
    let log_in_again = LogIn {
        user_id: alice.clone(),
        device_id: None,
        device_name: None,
        refreshing: Refreshing::No,
        by: None,
    };
    assert!(matches!(accounts.log_in(log_in_again).await, Err(Error::Deactivated)));
    accounts.reactivate(&alice).await.unwrap();
    assert!(accounts.verify_password(&alice, "alice's password").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn refreshing_keeps_the_old_pair_until_the_new_one_is_used() {
    let accounts = server();
    user(&accounts, "alice").await;
    let first = refreshable(&accounts, "ONE").await;
    accounts.authenticate(&first.access_token).await.unwrap();
    let old_refresh = first.refresh_token.clone().unwrap();

    let lost = accounts.refresh(&old_refresh).await.unwrap();
    accounts.authenticate(&first.access_token).await.unwrap();
    // The answer was lost: the old refresh token still works, and what it gave before does not.
    let second = accounts.refresh(&old_refresh).await.unwrap();
    assert!(accounts.authenticate(&lost.access_token).await.is_err());
    accounts.authenticate(&first.access_token).await.unwrap();

    accounts.authenticate(&second.access_token).await.unwrap();
    assert!(accounts.authenticate(&first.access_token).await.is_err());
    assert!(matches!(accounts.refresh(&old_refresh).await, Err(Error::UnknownToken { .. })));

    // The new refresh token may be used before the new access token.
    let third = accounts.refresh(second.refresh_token.as_deref().unwrap()).await.unwrap();
    let fourth = accounts.refresh(third.refresh_token.as_deref().unwrap()).await.unwrap();
    assert!(accounts.authenticate(&second.access_token).await.is_err());
    accounts.authenticate(&third.access_token).await.unwrap();
    accounts.authenticate(&fourth.access_token).await.unwrap();
    assert!(accounts.authenticate(&third.access_token).await.is_err());

    tokio::time::advance(Duration::from_secs(3601)).await;
    let expired = accounts.authenticate(&fourth.access_token).await;
    assert!(matches!(expired, Err(Error::UnknownToken { soft_logout: true })));
    let fifth = accounts.refresh(fourth.refresh_token.as_deref().unwrap()).await.unwrap();
    accounts.authenticate(&fifth.access_token).await.unwrap();
    accounts.log_out_all(user_id!("@alice:hs1")).await.unwrap();
    assert!(accounts.refresh(fifth.refresh_token.as_deref().unwrap()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn login_tokens_work_once_and_not_for_long() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let (token, _) = accounts.login_token(&alice).await.unwrap();
    assert_eq!(accounts.redeem_login_token(&token).await.unwrap(), (alice.clone(), LogInMethod::Token));
    let vouched = accounts.sign_on_token(&alice).await.unwrap();
    let by = accounts.redeem_login_token(&vouched).await.unwrap().1;
    assert_eq!(by, LogInMethod::SingleSignOn);
    assert!(accounts.redeem_login_token(&token).await.is_err());
    let (late, lifetime) = accounts.login_token(&alice).await.unwrap();
    tokio::time::advance(Duration::from_millis(lifetime)).await;
    assert!(accounts.redeem_login_token(&late).await.is_err());

    let (openid, lifetime) = accounts.openid_token(&alice).await.unwrap();
    assert_eq!(accounts.openid_user(&openid).await.unwrap(), alice);
    assert!(accounts.redeem_login_token(&openid).await.is_err());
    assert!(accounts.authenticate(&openid).await.is_err());
    assert_eq!(accounts.openid_user(&openid).await.unwrap(), alice);
    tokio::time::advance(Duration::from_millis(lifetime)).await;
    assert!(accounts.openid_user(&openid).await.is_err());
    assert!(accounts.sweep().await.unwrap() >= 2);
    assert_eq!(accounts.sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn devices_are_listed_named_seen_and_ended() {
    let accounts = server_with(|config| config.limits.devices = 2);
    let alice = user(&accounts, "alice").await;
    let token = log_in(&accounts, &alice, "ONE").await.access_token;
    log_in(&accounts, &alice, "TWO").await;
    let third = LogIn {
        user_id: alice.clone(),
        device_id: None,
        device_name: None,
        refreshing: Refreshing::No,
        by: None,
    };
    assert!(matches!(accounts.log_in(third).await, Err(Error::TooMany(_))));
    let odd = LogIn {
        user_id: alice.clone(),
        device_id: Some("x".repeat(512).into()),
        device_name: None,
        refreshing: Refreshing::No,
        by: None,
    };
    assert!(matches!(accounts.log_in(odd).await, Err(Error::Invalid(_))));

    accounts.saw(&alice, device_id!("ONE"), Some("192.0.2.7".parse().unwrap()));
    accounts.saw(&alice, device_id!("GONE"), None);
    assert_eq!(accounts.devices(&alice).await.unwrap()[0].last_seen_ip.as_deref(), Some("192.0.2.7"));
    accounts.flush_seen().await.unwrap();
    let one = accounts.device(&alice, device_id!("ONE")).await.unwrap().unwrap();
    assert_eq!(one.last_seen_ip.as_deref(), Some("192.0.2.7"));
    accounts.rename_device(&alice, device_id!("ONE"), Some("phone")).await.unwrap();
    let one = accounts.device(&alice, device_id!("ONE")).await.unwrap().unwrap();
    assert_eq!(one.name.as_deref(), Some("phone"));
    let before = accounts.store().read().position();
    accounts.rename_device(&alice, device_id!("ONE"), Some("phone")).await.unwrap();
    assert_eq!(accounts.store().read().position(), before, "the same name is no change");
    assert!(matches!(
        accounts.rename_device(&alice, device_id!("NONE"), None).await,
        Err(Error::NotFound(_))
    ));

    accounts.authenticate(&token).await.unwrap();
    accounts.delete_devices(&alice, &["ONE".into(), "NONE".into()]).await.unwrap();
    assert!(accounts.authenticate(&token).await.is_err());
    assert_eq!(accounts.devices(&alice).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_request_that_waits_is_not_let_in_for_a_device_that_was_ended() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let (one, two) = (log_in(&accounts, &alice, "ONE").await, refreshable(&accounts, "TWO").await);
    let ended = accounts.authenticate(&one.access_token).await.unwrap();
    let waiting = accounts.authenticate(&two.access_token).await.unwrap();
    accounts.delete_devices(&alice, &["ONE".into()]).await.unwrap();
    let outcome = accounts.still_admits(&ended).await;
    assert!(matches!(outcome, Err(Error::UnknownToken { soft_logout: false })));
    accounts.still_admits(&waiting).await.unwrap();
    let fresh = accounts.refresh(two.refresh_token.as_deref().unwrap()).await.unwrap();
    let fresh = accounts.authenticate(&fresh.access_token).await.unwrap();
    assert!(accounts.authenticate(&two.access_token).await.is_err());
    // Its client goes on with another token and is not to take this for a log-out.
    accounts.still_admits(&waiting).await.unwrap();
    accounts.soft_log_out_all(&alice).await.unwrap();
    let outcome = accounts.still_admits(&fresh).await;
    assert!(matches!(outcome, Err(Error::UnknownToken { soft_logout: true })));
}

#[tokio::test]
async fn a_request_that_waits_is_not_let_in_by_a_log_in_that_took_its_place() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let gone = async |waiting: &crate::Requester| {
        let outcome = accounts.still_admits(waiting).await;
        assert!(matches!(outcome, Err(Error::UnknownToken { soft_logout: false })), "{outcome:?}");
    };
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let issued = log_in(&accounts, &alice, "ONE").await;
        waiting.push(accounts.authenticate(&issued.access_token).await.unwrap());
    }
    gone(&waiting[0]).await;
    accounts.still_admits(&waiting[1]).await.unwrap();
    accounts.delete_devices(&alice, &["ONE".into()]).await.unwrap();
    let two = refreshable(&accounts, "ONE").await;
    gone(&waiting[1]).await;
    // To be refreshed is no log-in, also the second time.
    let two_waits = accounts.authenticate(&two.access_token).await.unwrap();
    let mut refresh_token = two.refresh_token.unwrap();
    for _ in 0..2 {
        let fresh = accounts.refresh(&refresh_token).await.unwrap();
        accounts.authenticate(&fresh.access_token).await.unwrap();
        accounts.still_admits(&two_waits).await.unwrap();
        refresh_token = fresh.refresh_token.unwrap();
    }
}

#[tokio::test]
async fn what_can_be_had_once_is_had_once() {
    let store = Store::new(Db::new(Yielding::default()));
    let processes = [on(&store, |_| {}), on(&store, |_| {}), on(&store, |_| {})];
    let mails = processes.iter().zip(["a", "b", "c"]).map(|(accounts, name)| {
        let new = NewUser { email: Some("a@gouv.fr".to_owned()), ..named(name) };
        accounts.create_user(new)
    });
    let made: Vec<_> = join_all(mails).await.into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    let names = processes.iter().map(|accounts| accounts.create_user(named("same")));
    assert_eq!(join_all(names).await.into_iter().flatten().count(), 1);
    let (token, _) = processes[0].login_token(&made[0]).await.unwrap();
    let uses = processes.iter().map(|accounts| accounts.redeem_login_token(&token));
    assert_eq!(join_all(uses).await.into_iter().flatten().count(), 1);

    processes[0].create_registration_token(Some("t".to_owned()), Some(2), None).await.unwrap();
    let uses = processes.iter().zip(["x", "y", "z"]).map(|(accounts, name)| {
        let new = NewUser { registration_token: Some("t".to_owned()), ..named(name) };
        accounts.create_user(new)
    });
    assert_eq!(join_all(uses).await.into_iter().flatten().count(), 2);
}

#[tokio::test]
async fn a_token_is_not_kept_beyond_a_log_out_that_happens_meanwhile() {
    let store = Store::new(Db::new(Yielding::default()));
    let accounts = on(&store, |_| {});
    let alice = user(&accounts, "alice").await;
    for n in 0..3 {
        let device = format!("D{n}");
        let token = log_in(&accounts, &alice, &device).await.access_token;
        let reads = (0..100).map(async |turns| {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            accounts.authenticate(&token).await
        });
        let (_, ended) = join(join_all(reads), accounts.log_out(&alice, device.as_str().into())).await;
        ended.unwrap();
        assert!(accounts.authenticate(&token).await.is_err());
    }
}

#[tokio::test]
async fn nobody_is_taken_for_a_thief_after_a_backup_was_put_back() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let client = [7; 32];
    let granted = async |device: &str| {
        let grant = OAuthGrant {
            user_id: alice.clone(),
            device_id: OwnedDeviceId::from(device),
            device_name: None,
            log_in: OAuthLogIn { client, scope: String::new(), browser: None },
        };
        let (reader, mut tx) = (accounts.store().read(), Tx::new());
        let (issued, _) = accounts.draft_oauth_log_in(&reader, &mut tx, &grant).await.unwrap();
        drop(reader);
        accounts.commit_of(&alice, tx).await.unwrap();
        issued.refresh_token.unwrap()
    };
    let is_unknown = async |token: &str| {
        matches!(accounts.refresh_for(&client, token).await, Err(Error::UnknownToken { .. }))
    };
    let devices = async || accounts.devices(&alice).await.unwrap().len();
    let (one, two) = (granted("ONE").await, granted("TWO").await);
    for _ in 0..2 {
        accounts.forget_families().await.unwrap();
    }
    let rows = accounts.store().read().scan_all::<DeviceTokens>(&()).await.unwrap();
    assert!(rows.iter().all(|(_, kind)| *kind != FAMILY), "{rows:?}");
    // Another one of the family, which the lost server gave out.
    assert!(is_unknown(&format!("{one}2")).await);
    assert_eq!(devices().await, 2);
    accounts.refresh_for(&client, &two).await.unwrap();
    let three = granted("THREE").await;
    assert!(is_unknown(&format!("{three}2")).await);
    assert_eq!(devices().await, 2, "who has logged in since is looked after as before");
}
