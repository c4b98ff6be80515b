//! The ends of accounts, as several processes see them.

use super::{on, user};
use crate::{Duty, Error};
use chappe_kv::{Db, Memory};
use chappe_store::Store;

const DAY: u64 = 86_400_000;

#[tokio::test]
async fn two_processes_mail_once_between_them_and_a_failed_mail_is_tried_again() {
    let store = Store::new(Db::new(Memory::default()));
    let process = || {
        on(&store, |config| {
            config.validity.days = 100;
            config.validity.mail_days_before = vec![60];
        })
    };
    let (one, two) = (process(), process());
    while one.enrol_some().await.unwrap() {}
    let alice = user(&one, "alice").await;
    let soon = one.world().now() + 50 * DAY;
    one.set_end(&alice, soon, None).await.unwrap();
    assert_eq!(one.ends_due(None, 10).await.unwrap().len(), 1);
    let (first, second) = tokio::join!(one.look_at_end(&alice), two.look_at_end(&alice));
    let duties = [first.unwrap(), second.unwrap()];
    let mails: Vec<_> = duties.iter().filter(|duty| matches!(duty, Duty::Mail(_))).collect();
    let [Duty::Mail(mail)] = mails[..] else { panic!("{duties:?}") };
    assert_eq!(one.look_at_end(&alice).await.unwrap(), Duty::Done);
    assert!(one.ends_due(None, 10).await.unwrap().is_empty());
    one.mail_failed(&alice, mail).await.unwrap();
    assert!(one.ends_due(None, 10).await.unwrap().is_empty(), "not at once");
    assert_eq!(one.validity(&alice).await.unwrap().ends, Some(soon));
}

#[tokio::test]
async fn what_another_process_keeps_in_memory_ends_in_time() {
    let store = Store::new(Db::new(Memory::default()));
    let accounts = on(&store, |config| config.validity.days = 100);
    let alice = user(&accounts, "alice").await;
    let issued = super::log_in(&accounts, &alice, "D").await;
    tokio::time::pause();
    accounts.set_end(&alice, accounts.world().now() + 1_000, None).await.unwrap();
    let requester = accounts.authenticate(&issued.access_token).await.unwrap();
    accounts.still_admits(&requester).await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    assert!(matches!(accounts.authenticate(&issued.access_token).await, Err(Error::Expired)));
    assert!(matches!(accounts.still_admits(&requester).await, Err(Error::Expired)));
    accounts.authenticate_renewing(&issued.access_token).await.unwrap();
    accounts.authenticate_leaving(&issued.access_token).await.unwrap();
    accounts.renew(&alice).await.unwrap();
    accounts.authenticate(&issued.access_token).await.unwrap();
}

#[tokio::test]
async fn an_account_is_closed_or_renewed_but_never_closed_behind_a_renewal() {
    for _ in 0..20 {
        let store = Store::new(Db::new(Memory::default()));
        let process = || {
            on(&store, |config| {
                config.validity.days = 100;
                config.validity.mail_days_before = Vec::new();
                config.validity.close_after_days = 1;
            })
        };
        let (one, two) = (process(), process());
        let alice = user(&one, "alice").await;
        one.set_end(&alice, one.world().now(), None).await.unwrap();
        tokio::time::pause();
        assert_eq!(one.look_at_end(&alice).await.unwrap(), Duty::Done, "it is found to have ended");
        tokio::time::advance(std::time::Duration::from_millis(2 * DAY)).await;
        let (looked, renewed) = tokio::join!(one.look_at_end(&alice), two.renew(&alice));
        let closed = one.user(&alice).await.unwrap().unwrap().deactivated.is_some();
        assert_eq!(looked.unwrap() == Duty::Closed, closed);
        assert_eq!(renewed.is_err(), closed);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn ends_that_are_switched_off_end_nobody_and_switched_on_begin_anew() {
    let store = Store::new(Db::new(Memory::default()));
    let accounts = on(&store, |config| {
        config.validity.days = 100;
        config.validity.mail_days_before = Vec::new();
        config.validity.close_after_days = 1;
    });
    while accounts.enrol_some().await.unwrap() {}
    let alice = user(&accounts, "alice").await;
    accounts.set_end(&alice, accounts.world().now(), None).await.unwrap();
    tokio::time::pause();
    assert_eq!(accounts.look_at_end(&alice).await.unwrap(), Duty::Done, "it is found to have ended");
    tokio::time::advance(std::time::Duration::from_millis(2 * DAY)).await;

    let section = (*accounts.config()).clone();
    let mut off = section.clone();
    off.validity.days = 0;
    accounts.reconfigure(off);
    assert_eq!(accounts.look_at_end(&alice).await.unwrap(), Duty::Done, "it was due to be closed");
    assert!(accounts.user(&alice).await.unwrap().unwrap().deactivated.is_none());
    assert!(!accounts.enrol_some().await.unwrap());
    let bob = user(&accounts, "bob").await;

    accounts.reconfigure(section);
    accounts.end_enrolment().await.unwrap();
    while accounts.enrol_some().await.unwrap() {}
    for who in [&alice, &bob] {
        let ends = accounts.validity(who).await.unwrap().ends;
        assert!(ends.is_some_and(|ends| ends > accounts.world().now() + 80 * DAY), "{who}: {ends:?}");
    }
}
