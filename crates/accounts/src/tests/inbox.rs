//! To-device messages and key backup.

use std::collections::BTreeMap;

use chappe_store::{
    Json, Position, Tx,
    accounts_keys::{Backup, Backups, ToDeviceSenders},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, device_id, room_id, user_id};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::{log_in, server, server_with, user};
use crate::{Accounts, BackupKeysMap, Error, Recipients, Sending};

const END: Position = Position(u64::MAX - 1);

fn content(n: usize) -> Box<RawValue> {
    to_raw_value(&json!({ "n": n })).unwrap()
}

async fn send(accounts: &Accounts, once: &str, to: &OwnedUserId, recipients: Recipients) -> bool {
    send_from(accounts, user_id!("@bob:elsewhere"), once, (to, recipients)).await
}

async fn send_from(
    accounts: &Accounts,
    sender: &UserId,
    once: &str,
    (to, recipients): (&OwnedUserId, Recipients),
) -> bool {
    let messages = [(to.clone(), recipients)];
    let sending = Sending { sender, once: Some(("DEV", once)), event_type: "m.test", messages: &messages };
    accounts.send_to_devices(sending, Tx::new()).await.unwrap()
}

async fn waiting(accounts: &Accounts, user: &OwnedUserId, device: &str) -> Vec<(Position, u64)> {
    let reader = accounts.store().read();
    let device = OwnedDeviceId::from(device);
    let found = accounts.to_device_messages(&reader, user, &device, Position(0), END, 1000).await.unwrap();
    let number = |text: &str| {
        let event: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(event["type"], "m.test");
        event["content"]["n"].as_u64().unwrap()
    };
    found.iter().map(|message| (message.position, number(message.event.get()))).collect()
}

#[tokio::test]
async fn a_message_arrives_once_for_each_device() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    log_in(&accounts, &alice, "TWO").await;
    assert!(send(&accounts, "1", &alice, Recipients::All(content(1))).await);
    assert!(!send(&accounts, "1", &alice, Recipients::All(content(2))).await);
    let to_one: BTreeMap<_, _> = [("ONE".into(), content(3)), ("NONE".into(), content(4))].into();
    assert!(send(&accounts, "2", &alice, Recipients::Devices(to_one)).await);

    let one = waiting(&accounts, &alice, "ONE").await;
    assert_eq!(one.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(waiting(&accounts, &alice, "TWO").await.len(), 1);
    assert!(waiting(&accounts, &alice, "NONE").await.is_empty());

    accounts.delete_to_device(&alice, device_id!("ONE"), one[0].0).await.unwrap();
    assert_eq!(waiting(&accounts, &alice, "ONE").await, one[1..]);
    accounts.delete_devices(&alice, &["ONE".into()]).await.unwrap();
    assert!(waiting(&accounts, &alice, "ONE").await.is_empty());
    log_in(&accounts, &alice, "ONE").await;
    assert!(waiting(&accounts, &alice, "ONE").await.is_empty());
}

#[tokio::test]
async fn messages_of_one_commit_stay_together() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    log_in(&accounts, &alice, "ONE").await;
    log_in(&accounts, &bob, "BOB").await;
    let messages = [
        (alice.clone(), Recipients::All(content(1))),
        (bob.clone(), Recipients::All(content(1))),
        (alice.clone(), Recipients::All(content(2))),
        (alice.clone(), Recipients::All(content(3))),
    ];
    let sending =
        Sending { sender: user_id!("@bob:elsewhere"), once: None, event_type: "m.test", messages: &messages };
    accounts.send_to_devices(sending, Tx::new()).await.unwrap();
    send(&accounts, "2", &alice, Recipients::All(content(4))).await;
    let reader = accounts.store().read();
    let page =
        accounts.to_device_messages(&reader, &alice, device_id!("ONE"), Position(0), END, 2).await.unwrap();
    assert_eq!(page.len(), 3);
    let next = page[2].position;
    let rest = accounts.to_device_messages(&reader, &alice, device_id!("ONE"), next, END, 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    let none =
        accounts.to_device_messages(&reader, &alice, device_id!("ONE"), Position(0), Position(0), 2).await;
    assert!(none.unwrap().is_empty());
}

#[tokio::test]
async fn a_full_inbox_drops_the_oldest() {
    let accounts = server_with(|config| config.limits.to_device = 250);
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    for n in 0..260 {
        send(&accounts, &n.to_string(), &alice, Recipients::All(content(n))).await;
    }
    let left = waiting(&accounts, &alice, "ONE").await;
    assert!(left.len() <= 250, "{}", left.len());
    assert_eq!(left.last().unwrap().1, 259);
}

#[tokio::test]
async fn nobody_pushes_out_what_others_sent() {
    let accounts = server_with(|config| config.limits.to_device = 250);
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    for n in 0..10 {
        let to_alice = (&alice, Recipients::All(content(n)));
        send_from(&accounts, user_id!("@carol:elsewhere"), &n.to_string(), to_alice).await;
    }
    for n in 10..800 {
        send(&accounts, &n.to_string(), &alice, Recipients::All(content(n))).await;
    }
    let left = waiting(&accounts, &alice, "ONE").await;
    let numbers: Vec<_> = left.iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers[..10], (0..10).collect::<Vec<_>>());
    assert!(numbers.len() <= 250 && numbers.last() == Some(&799), "{numbers:?}");
    accounts.delete_to_device(&alice, device_id!("ONE"), left.last().unwrap().0).await.unwrap();
    let counts = accounts.store().read().scan_all::<ToDeviceSenders>(&()).await.unwrap();
    assert!(counts.is_empty(), "nothing is left of an inbox that is empty: {counts:?}");
}

#[tokio::test]
async fn a_server_is_no_crowd_however_many_users_it_makes_up() {
    let accounts = server_with(|config| config.limits.to_device = 250);
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    for n in 0..10 {
        for sender in [user_id!("@carol:elsewhere"), user_id!("@dan:hs1")] {
            let to_alice = (&alice, Recipients::All(content(n)));
            send_from(&accounts, sender, &n.to_string(), to_alice).await;
        }
    }
    for n in 10..800 {
        let sender = OwnedUserId::try_from(format!("@u{n}:hostile")).unwrap();
        send_from(&accounts, &sender, "1", (&alice, Recipients::All(content(n)))).await;
    }
    let left = waiting(&accounts, &alice, "ONE").await;
    assert_eq!(left.iter().filter(|(_, n)| *n < 10).count(), 20, "{left:?}");
    assert!(left.len() <= 250 && left.last().unwrap().1 == 799);
}

#[tokio::test]
async fn what_fills_an_inbox_goes_however_much_lies_before_it() {
    let accounts = server_with(|config| config.limits.to_device = 4_500);
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    let sent = async |sender: &UserId, count: usize| {
        let messages = vec![(alice.clone(), Recipients::All(content(0))); count];
        let sending = Sending { sender, once: None, event_type: "m.test", messages: &messages };
        accounts.send_to_devices(sending, Tx::new()).await.unwrap();
    };
    for n in 0..41 {
        sent(&OwnedUserId::try_from(format!("@u:quiet{n}")).unwrap(), 100).await;
    }
    sent(user_id!("@a:hostile"), 400).await;
    for n in 0..600 {
        sent(&OwnedUserId::try_from(format!("@u{n}:hostile")).unwrap(), 1).await;
    }
    let reader = accounts.store().read();
    let device = OwnedDeviceId::from("ONE");
    let left = accounts.to_device_messages(&reader, &alice, &device, Position(0), END, 9_999).await.unwrap();
    let quiet = left.iter().filter(|message| message.event.get().contains("@u:quiet")).count();
    assert_eq!(quiet, 4_100, "of {}", left.len());
    assert!(left.len() <= 4_500);
}

#[tokio::test]
async fn what_does_not_fit_one_commit_still_arrives() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    for n in 0..60 {
        log_in(&accounts, &alice, &format!("D{n}")).await;
    }
    let large = to_raw_value(&json!({ "n": 7, "pad": "x".repeat(60_000) })).unwrap();
    assert!(send(&accounts, "1", &alice, Recipients::All(large)).await);
    for n in 0..60 {
        assert_eq!(waiting(&accounts, &alice, &format!("D{n}")).await.len(), 1);
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_is_left_out_alone() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    log_in(&accounts, &alice, "ONE").await;
    log_in(&accounts, &alice, "TWO").await;
    let padded = |n: usize, length: usize| {
        let bare = to_raw_value(&json!({ "n": n, "pad": "" })).unwrap().get().len();
        to_raw_value(&json!({ "n": n, "pad": "x".repeat(length - bare) })).unwrap()
    };
    let by_device = BTreeMap::from([
        (OwnedDeviceId::from("ONE"), padded(1, 65_537)),
        (OwnedDeviceId::from("TWO"), padded(2, 65_536)),
    ]);
    let list = to_raw_value(&json!([])).unwrap();
    let messages = [
        (alice.clone(), Recipients::All(padded(3, 65_537))),
        (alice.clone(), Recipients::All(list)),
        (alice.clone(), Recipients::Devices(by_device)),
        (alice.clone(), Recipients::All(content(4))),
    ];
    let sent = async |sender: &UserId, messages: &[(OwnedUserId, Recipients)]| {
        let sending = Sending { sender, once: None, event_type: "m.test", messages };
        accounts.send_to_devices(sending, Tx::new()).await
    };
    sent(user_id!("@bob:elsewhere"), &messages[..]).await.unwrap();
    let numbers = async |device: &str| {
        waiting(&accounts, &alice, device).await.into_iter().map(|(_, n)| n).collect::<Vec<_>>()
    };
    assert_eq!(numbers("ONE").await, [4]);
    assert_eq!(numbers("TWO").await, [2, 4]);
    // Who is here is told.
    assert!(matches!(sent(&alice, &messages[..1]).await, Err(Error::TooLarge(_))));
    assert!(matches!(sent(&alice, &messages[1..2]).await, Err(Error::BadJson(_))));
}

fn key(index: u64, forwarded: u64, verified: bool) -> Box<RawValue> {
    to_raw_value(&json!({
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": { "ephemeral": "e", "ciphertext": "c", "mac": "m" },
    }))
    .unwrap()
}

fn keys(session: &str, key: Box<RawValue>) -> BackupKeysMap {
    [(room_id!("!r:hs1").to_owned(), [(session.to_owned(), key)].into())].into()
}

#[tokio::test]
async fn the_better_key_stays_in_the_backup() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let data = to_raw_value(&json!({ "public_key": "k" })).unwrap();
    assert!(accounts.backup(&alice, None).await.unwrap().is_none());
    assert!(matches!(
        accounts.put_backup_keys(&alice, "1", keys("s", key(1, 1, false))).await,
        Err(Error::NotFound(_))
    ));
    assert_eq!(accounts.create_backup(&alice, "a", &data).await.unwrap(), "1");
    let first = accounts.put_backup_keys(&alice, "1", keys("s", key(5, 5, false))).await.unwrap();
    assert_eq!(first.count, 1);
    let worse = accounts.put_backup_keys(&alice, "1", keys("s", key(5, 6, false))).await.unwrap();
    assert_eq!(worse, first);
    let mut etag = first.etag;
    for better in [key(5, 4, false), key(4, 9, false), key(9, 9, true), key(8, 9, true)] {
        let change = accounts.put_backup_keys(&alice, "1", keys("s", better.clone())).await.unwrap();
        assert!(change.etag != etag && change.count == 1);
        etag = change.etag;
        let stored = accounts.backup_key(&alice, "1", room_id!("!r:hs1"), "s").await.unwrap();
        assert_eq!(stored.unwrap().get(), better.get());
    }
    let broken = to_raw_value(&json!({ "first_message_index": -1 })).unwrap();
    assert!(matches!(accounts.put_backup_keys(&alice, "1", keys("s", broken)).await, Err(Error::BadJson(_))));

    assert_eq!(accounts.create_backup(&alice, "a", &data).await.unwrap(), "2");
    match accounts.put_backup_keys(&alice, "1", keys("s", key(0, 0, true))).await {
        Err(Error::WrongBackupVersion { current }) => assert_eq!(current, "2"),
        other => panic!("{other:?}"),
    }
    assert!(accounts.update_backup(&alice, "2", "b", &data).await.is_err());
    accounts.delete_backup(&alice, "2").await.unwrap();
    accounts.delete_backup(&alice, "2").await.unwrap();
    for never in ["0", "3", "02"] {
        assert!(matches!(accounts.delete_backup(&alice, never).await, Err(Error::NotFound(_))), "{never}");
    }
    let info = accounts.backup(&alice, None).await.unwrap().unwrap();
    assert_eq!((info.version.as_str(), info.count), ("1", 1));
    let gone = accounts.delete_backup_keys(&alice, "1", None, None).await.unwrap();
    assert_eq!(gone.count, 0);
    assert!(accounts.backup_keys(&alice, "1", None, None, 10).await.unwrap().is_empty());
    assert!(accounts.backup(&alice, Some("01")).await.unwrap().is_none());
    // A number is never given twice.
    assert_eq!(accounts.create_backup(&alice, "a", &data).await.unwrap(), "3");
}

#[tokio::test]
async fn a_backup_is_read_in_pages_and_emptied_by_room() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let data = to_raw_value(&json!({})).unwrap();
    accounts.create_backup(&alice, "a", &data).await.unwrap();
    let rooms = [room_id!("!one:hs1"), room_id!("!two:hs1")];
    let sessions =
        |n: usize| -> BTreeMap<_, _> { (0..n).map(|n| (n.to_string(), key(1, 1, false))).collect() };
    let all = BTreeMap::from([(rooms[0].to_owned(), sessions(5)), (rooms[1].to_owned(), sessions(4))]);
    accounts.put_backup_keys(&alice, "1", all).await.unwrap();
    let pages = async |room| {
        let (mut sizes, mut found) = (Vec::new(), Vec::new());
        loop {
            let page = accounts.backup_keys(&alice, "1", room, found.last(), 3).await.unwrap();
            if page.is_empty() {
                break;
            }
            sizes.push(page.len());
            found.extend(page);
        }
        assert!(
            found.windows(2).all(|two| (&two[0].room, &two[0].session) < (&two[1].room, &two[1].session))
        );
        sizes
    };
    assert_eq!(pages(None).await, [3, 3, 3]);
    assert_eq!((pages(Some(rooms[0])).await, pages(Some(rooms[1])).await), (vec![3, 2], vec![3, 1]));
    let left = accounts.delete_backup_keys(&alice, "1", Some(rooms[0]), None).await.unwrap();
    assert_eq!((left.count, pages(None).await), (4, vec![3, 1]));
    let again = accounts.delete_backup_keys(&alice, "1", Some(rooms[0]), None).await.unwrap();
    assert_eq!(again, left, "nothing was there");
    let one = accounts.delete_backup_keys(&alice, "1", Some(rooms[1]), Some("0")).await.unwrap();
    assert_eq!(one.count, 3);
    assert_eq!(accounts.delete_backup_keys(&alice, "1", None, None).await.unwrap().count, 0);
    assert!(pages(None).await.is_empty());
}

#[tokio::test]
async fn a_backup_that_nobody_counted_is_counted_once() {
    let size = key(1, 1, false).get().len() as u64;
    let accounts = server_with(|config| config.limits.backup_bytes = 2 * size);
    let alice = user(&accounts, "alice").await;
    accounts.create_backup(&alice, "a", &to_raw_value(&json!({})).unwrap()).await.unwrap();
    let put = async |session: &str, key| accounts.put_backup_keys(&alice, "1", keys(session, key)).await;
    put("one", key(1, 1, false)).await.unwrap();
    put("two", key(1, 1, false)).await.unwrap();
    let row = (alice.clone(), 1);
    let Json(counted) = accounts.store().read().get::<Backups>(&row).await.unwrap().unwrap();
    let mut tx = Tx::new();
    tx.put::<Backups>(&row, &Json(Backup { bytes: 0, ..counted }));
    accounts.store().commit(tx).await.unwrap();
    assert!(matches!(put("three", key(1, 1, false)).await, Err(Error::TooLarge(_))));
    let Json(again) = accounts.store().read().get::<Backups>(&row).await.unwrap().unwrap();
    assert_eq!(again.bytes, 2 * size);
}

#[tokio::test]
async fn a_backup_has_a_size() {
    let size = key(1, 1, false).get().len() as u64;
    let accounts = server_with(|config| config.limits.backup_bytes = 2 * size);
    let alice = user(&accounts, "alice").await;
    accounts.create_backup(&alice, "a", &to_raw_value(&json!({})).unwrap()).await.unwrap();
    let put = async |session: &str, key| accounts.put_backup_keys(&alice, "1", keys(session, key)).await;
    put("one", key(1, 1, false)).await.unwrap();
    put("two", key(1, 1, false)).await.unwrap();
    assert!(matches!(put("three", key(1, 1, false)).await, Err(Error::TooLarge(_))));
    put("two", key(0, 1, false)).await.unwrap();
    accounts.delete_backup_keys(&alice, "1", Some(room_id!("!r:hs1")), Some("one")).await.unwrap();
    put("three", key(1, 1, false)).await.unwrap();
    accounts.delete_backup_keys(&alice, "1", Some(room_id!("!r:hs1")), None).await.unwrap();
    put("one", key(1, 1, false)).await.unwrap();
    put("two", key(1, 1, false)).await.unwrap();
}
