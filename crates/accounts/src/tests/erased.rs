//! What is left of an account that was erased.

use chappe_store::{
    Json, RoomNid, Table, Tx,
    accounts::Users,
    accounts_data::{AccountData, AccountDataChanges, AccountDataCounts, Filters, ProfileNews, Profiles},
    accounts_keys::{BackupKeys, Backups, CrossSigningKeys, KeySignatures, SignatureChanges},
    thread_subscriptions::{
        ThreadSubscription, ThreadSubscriptionCounts, ThreadSubscriptionOrder, ThreadSubscriptions,
    },
};
use ruma::{OwnedUserId, api::client::filter::FilterDefinition, event_id, room_id};
use serde_json::{json, value::to_raw_value};

use super::{on, server, user};
use crate::{Accounts, Erase, Scope};

/// Has something of all that is kept of a user and is no event.
async fn fill(accounts: &Accounts, user: &OwnedUserId) {
    let raw = to_raw_value(&json!({"a": 1})).unwrap();
    accounts.set_profile_field(user, "displayname", Some(&json!("Somebody"))).await.unwrap();
    accounts.set_account_data(user, Scope::Global, "a", &raw).await.unwrap();
    accounts.store_filter(user, &FilterDefinition::default()).await.unwrap();
    accounts.create_backup(user, "a", &raw).await.unwrap();
    let mut tx = Tx::new();
    let session = (user.clone(), 1, room_id!("!r:hs1").to_owned(), "s".to_owned());
    tx.put::<BackupKeys>(&session, &b"{}".to_vec());
    tx.put::<CrossSigningKeys>(&(user.clone(), 0), &b"{}".to_vec());
    let signed = (user.clone(), user.clone(), "k".to_owned(), "k".to_owned());
    tx.put::<KeySignatures>(&signed, &"s".to_owned());
    tx.put_at_position::<SignatureChanges>(user, user, &());
    let followed = ThreadSubscription { subscribed: true, automatic: false, ceased_at: 0 };
    tx.put_thread_subscription(user, (RoomNid(1), event_id!("$root")), None, &followed);
    accounts.store().commit(tx).await.unwrap();
}

async fn count<T: Table>(accounts: &Accounts, user: &OwnedUserId) -> usize {
    accounts.store().read().scan_all::<T>(user).await.unwrap().len()
}

/// How many rows of each table are about a user.
async fn rows(accounts: &Accounts, user: &OwnedUserId) -> [usize; 14] {
    [
        count::<Profiles>(accounts, user).await,
        count::<ProfileNews>(accounts, user).await,
        count::<AccountData>(accounts, user).await,
        count::<AccountDataChanges>(accounts, user).await,
        count::<AccountDataCounts>(accounts, user).await,
        count::<Filters>(accounts, user).await,
        count::<ThreadSubscriptions>(accounts, user).await,
        count::<ThreadSubscriptionOrder>(accounts, user).await,
        count::<ThreadSubscriptionCounts>(accounts, user).await,
        count::<Backups>(accounts, user).await,
        count::<BackupKeys>(accounts, user).await,
        count::<CrossSigningKeys>(accounts, user).await,
        count::<KeySignatures>(accounts, user).await,
        count::<SignatureChanges>(accounts, user).await,
    ]
}

#[tokio::test]
async fn of_an_erased_account_nothing_is_left_but_that_it_was_there() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    for user in [&alice, &bob] {
        fill(&accounts, user).await;
    }
    let full = rows(&accounts, &bob).await;
    assert!(full.iter().all(|rows| *rows > 0), "{full:?}");
    accounts.deactivate(&alice, Erase::No).await.unwrap();
    assert_eq!(rows(&accounts, &alice).await, full, "it may be opened again");
    // The same server after a restart.
    let erased = async || {
        let again = on(accounts.store(), |_| {});
        again.learn_erased().await.unwrap();
        [&alice, &bob].map(|user| {
            assert_eq!(accounts.is_erased(user), again.is_erased(user), "{user}");
            again.is_erased(user)
        })
    };
    assert_eq!(erased().await, [false, false]);
    accounts.deactivate(&alice, Erase::Yes).await.unwrap();
    assert_eq!(rows(&accounts, &alice).await, [0; 14]);
    assert_eq!(rows(&accounts, &bob).await, full);
    assert_eq!(erased().await, [true, false]);
    accounts.reactivate(&alice).await.unwrap();
    assert_eq!(erased().await, [false, false]);
}

#[tokio::test]
async fn what_an_older_release_left_of_erased_accounts_goes_once() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    for user in [&alice, &bob] {
        fill(&accounts, user).await;
        accounts.deactivate(user, Erase::No).await.unwrap();
    }
    let full = rows(&accounts, &bob).await;
    let Json(mut record) = accounts.store().read().get::<Users>(&alice).await.unwrap().unwrap();
    record.deactivated.as_mut().unwrap().erase = true;
    let mut tx = Tx::new();
    tx.put::<Users>(&alice, &Json(record));
    accounts.store().commit(tx).await.unwrap();
    let left_after_a_start = async || {
        let again = on(accounts.store(), |_| {});
        again.learn_erased().await.unwrap();
        again.finish_erasures().await.unwrap();
        rows(&again, &alice).await
    };
    assert_eq!(left_after_a_start().await, [0; 14]);
    assert_eq!(rows(&accounts, &bob).await, full);
    fill(&accounts, &alice).await;
    assert_eq!(left_after_a_start().await, full, "once");
}
