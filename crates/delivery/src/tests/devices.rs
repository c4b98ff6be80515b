//! What a device gets for itself: messages, keys, account data.

use std::ops::Range;

use chappe_accounts::{KeyUpload, Recipients, Scope, Sending};
use chappe_rooms::Draft;
use chappe_store::{
    LogEntry, Tx,
    accounts_keys::{DeviceListChanges, SignatureChanges},
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedOneTimeKeyId, OwnedUserId,
    encryption::DeviceKeys,
    serde::{Base64, Raw},
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{json, value::to_raw_value};

use super::house::{House, Person, taken_out, values};
use crate::{Delta, DeviceLists, Error, sync::CHANGES};

pub(super) async fn message(from: &Person<'_>, to: &Person<'_>, text: &str) {
    let content = to_raw_value(&json!({"text": text})).unwrap();
    let messages = [(to.id.clone(), Recipients::All(content))];
    let sending = Sending { sender: &from.id, once: None, event_type: "x.test", messages: &messages };
    assert!(from.house.accounts.send_to_devices(sending, Tx::new()).await.unwrap());
}

fn texts(events: &[Box<serde_json::value::RawValue>]) -> Vec<String> {
    values(events).iter().map(|event| event["content"]["text"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn messages_stay_until_the_next_token_comes_back() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let first = bob.sync(None).await;
    message(&alice, &bob, "one").await;
    let second = bob.sync(Some(first.next)).await;
    assert_eq!(texts(&second.to_device), ["one"]);
    let repeated = bob.sync(Some(first.next)).await;
    assert_eq!(texts(&repeated.to_device), ["one"], "the answer may never have arrived");
    message(&alice, &bob, "two").await;
    let third = bob.sync(Some(second.next)).await;
    assert_eq!(texts(&third.to_device), ["two"]);
    let late = bob.sync(Some(first.next)).await;
    assert_eq!(texts(&late.to_device), ["two"], "the first is gone for good");
}

#[tokio::test]
async fn many_messages_come_in_several_answers_without_loss() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let mut token = bob.sync(None).await.next;
    for n in 0..250 {
        message(&alice, &bob, &n.to_string()).await;
    }
    let mut got = Vec::new();
    while got.len() < 250 {
        let delta = bob.sync(Some(token)).await;
        let count = delta.to_device.len();
        assert!((1..=101).contains(&count), "{count} after {}, next {}", got.len(), delta.next);
        got.extend(texts(&delta.to_device));
        token = delta.next.to_string().parse().unwrap();
    }
    assert_eq!(got, (0..250).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(bob.sync(Some(token)).await.to_device.is_empty());
}

#[tokio::test]
async fn account_data_comes_when_it_changes() {
    let house = House::new();
    let alice = house.user("alice").await;
    let room = alice.room(&[]).await;
    let first = alice.sync(None).await;
    assert!(values(&first.account_data).iter().any(|event| event["type"] == "m.push_rules"));
    let content = to_raw_value(&json!({"a": 1})).unwrap();
    house.accounts.set_account_data(&alice.id, Scope::Global, "x.mine", &content).await.unwrap();
    house.accounts.set_account_data(&alice.id, Scope::Room(&room), "x.here", &content).await.unwrap();
    let delta = alice.sync(Some(first.next)).await;
    assert_eq!(values(&delta.account_data), [json!({"type": "x.mine", "content": {"a": 1}})]);
    assert_eq!(
        values(&delta.joined[&room].part.account_data),
        [json!({"type": "x.here", "content": {"a": 1}})]
    );
    assert!(alice.sync(Some(delta.next)).await.is_empty());
    let all = alice.sync(None).await;
    assert_eq!(values(&all.joined[&room].part.account_data).len(), 1);
}

fn device_keys(of: &Person<'_>) -> Raw<DeviceKeys> {
    let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "D".to_owned()).unwrap();
    let public: Base64 = Base64::new(pair.public_key().to_vec());
    let keys = json!({
        "user_id": of.id, "device_id": "D", "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {"ed25519:D": public, "curve25519:D": public},
    });
    let mut keys = serde_json::from_value(keys).unwrap();
    sign_json(of.id.as_str(), &pair, &mut keys).unwrap();
    Raw::from_json(to_raw_value(&keys).unwrap())
}

#[tokio::test]
async fn those_who_share_a_room_hear_of_new_devices() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let carol = house.user("carol").await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let (for_bob, for_carol) = (bob.sync(None).await.next, carol.sync(None).await.next);
    let upload = KeyUpload { device_keys: Some(device_keys(&alice)), ..KeyUpload::default() };
    house.accounts.upload_keys(&alice.id, "D".into(), upload).await.unwrap();
    assert_eq!(bob.sync(Some(for_bob)).await.device_lists.changed, std::slice::from_ref(&alice.id));
    assert!(carol.sync(Some(for_carol)).await.device_lists.changed.is_empty());
}

/// The devices of so many change whom nobody here meets.
async fn strangers_change(house: &House, numbers: Range<usize>) {
    let mut tx = Tx::new();
    for n in numbers {
        let stranger = OwnedUserId::try_from(format!("@s{n}:b.example")).unwrap();
        tx.put_at_position::<DeviceListChanges>(&(), &stranger, &0);
    }
    house.store.commit(tx).await.unwrap();
}

#[tokio::test]
async fn whose_devices_changed_is_known_without_looking_through_rooms() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let (one, two) = (alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&one).await;
    bob.join(&two).await;
    let since = bob.sync(None).await.next;
    // What the first later sync looks up is known to those after it.
    let since = bob.sync(Some(since)).await.next;
    let upload = KeyUpload { device_keys: Some(device_keys(&alice)), ..KeyUpload::default() };
    house.accounts.upload_keys(&alice.id, "D".into(), upload).await.unwrap();
    house.trips.take();
    let lists = bob.sync(Some(since)).await.device_lists;
    assert_eq!(lists.changed, std::slice::from_ref(&alice.id));
    assert_eq!(house.trips.take_apart().0.reads(), 1, "whether they still share the room");
    alice.leave(&one).await;
    let lists = bob.sync(Some(since)).await.device_lists;
    assert_eq!(lists.changed, std::slice::from_ref(&alice.id), "they share the other room");
    assert!(lists.left.is_empty());
    alice.leave(&two).await;
    let lists = bob.sync(Some(since)).await.device_lists;
    assert_eq!((lists.changed, lists.left), (Vec::new(), vec![alice.id.clone()]));
}

#[tokio::test]
async fn of_all_who_changed_since_an_old_token_it_is_asked_once_who_shares_a_room() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    bob.join(&alice.room(&[]).await).await;
    let since = bob.sync(None).await.next;
    strangers_change(&house, 0..CHANGES + 1).await;
    let upload = KeyUpload { device_keys: Some(device_keys(&alice)), ..KeyUpload::default() };
    house.accounts.upload_keys(&alice.id, "D".into(), upload).await.unwrap();
    let (alice, bob) = (alice.id.clone(), bob.id.clone());
    let house = house.restarted().await;
    let reads = async || {
        house.trips.take();
        let lists = house.delivery.device_lists(&bob, since, None).await.unwrap();
        assert_eq!(lists.changed, std::slice::from_ref(&alice));
        house.trips.take_apart().0.reads()
    };
    // What the first one looks up is known to those after it.
    reads().await;
    let with_two_pages = reads().await;
    strangers_change(&house, CHANGES + 1..2 * CHANGES + 1).await;
    assert_eq!(reads().await, with_two_pages + 1, "one more page");
}

#[tokio::test]
async fn changes_of_many_strangers_hide_nobody() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let for_bob = bob.sync(None).await.next;
    strangers_change(&house, 0..CHANGES + 1).await;
    let upload = KeyUpload { device_keys: Some(device_keys(&alice)), ..KeyUpload::default() };
    house.accounts.upload_keys(&alice.id, "D".into(), upload).await.unwrap();
    assert_eq!(bob.sync(Some(for_bob)).await.device_lists.changed, std::slice::from_ref(&alice.id));
    let lists = house.delivery.device_lists(&bob.id, for_bob, None).await.unwrap();
    assert_eq!(lists.changed, std::slice::from_ref(&alice.id));
}

#[tokio::test]
async fn who_signed_somebodys_key_hears_of_it_and_nobody_else() {
    let house = House::new();
    let (alice, bob, carol) = (house.user("alice").await, house.user("bob").await, house.user("carol").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let mut tokens = Vec::new();
    for person in [&alice, &bob, &carol] {
        tokens.push(person.sync(None).await.next);
    }
    let mut tx = Tx::new();
    tx.put_at_position::<SignatureChanges>(&alice.id, &bob.id, &());
    tx.log(LogEntry::KeySignatures { user: alice.id.clone() });
    house.store.commit(tx).await.unwrap();
    let told = alice.sync(Some(tokens[0])).await;
    assert_eq!(told.device_lists.changed, std::slice::from_ref(&bob.id));
    assert!(alice.sync(Some(told.next)).await.device_lists.changed.is_empty());
    for (person, token) in [(&bob, tokens[1]), (&carol, tokens[2])] {
        assert!(person.sync(Some(token)).await.device_lists.changed.is_empty());
    }
}

#[tokio::test]
async fn who_comes_goes_and_comes_back_is_told() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    let (for_alice, for_bob) = (alice.sync(None).await.next, bob.sync(None).await.next);
    bob.join(&room).await;
    let lists = bob.sync(Some(for_bob)).await.device_lists;
    assert_eq!(
        lists.changed,
        [alice.id.clone(), bob.id.clone()],
        "who comes into a room, themselves included"
    );
    let delta = alice.sync(Some(for_alice)).await;
    assert_eq!(delta.device_lists.changed, std::slice::from_ref(&bob.id));

    bob.leave(&room).await;
    bob.join(&room).await;
    let back = alice.sync(Some(delta.next)).await;
    assert_eq!(back.device_lists.changed, std::slice::from_ref(&bob.id), "bob was away in between");
    assert!(back.device_lists.left.is_empty());

    let named = json!({"membership": "join", "displayname": "Bob"}).as_object().unwrap().clone();
    let draft = Draft::state("m.room.member".to_owned(), bob.id.as_str(), named);
    house.rooms.send(&bob.actor(), &room, draft, None).await.unwrap();
    let renamed = alice.sync(Some(back.next)).await;
    assert!(renamed.joined.contains_key(&room) && renamed.device_lists.changed.is_empty());

    bob.leave(&room).await;
    let gone = alice.sync(Some(renamed.next)).await;
    assert_eq!(gone.device_lists.left, std::slice::from_ref(&bob.id));
    assert!(gone.device_lists.changed.is_empty());
}

#[tokio::test]
async fn who_shares_another_room_has_not_left_and_an_invite_tells_nothing() {
    let house = House::new();
    let (alice, bob, carol) = (house.user("alice").await, house.user("bob").await, house.user("carol").await);
    let (one, two) = (alice.room(&[]).await, alice.room(&[&carol]).await);
    bob.join(&one).await;
    bob.join(&two).await;
    let (for_bob, for_carol) = (bob.sync(None).await.next, carol.sync(None).await.next);
    bob.leave(&one).await;
    assert!(bob.sync(Some(for_bob)).await.device_lists.left.is_empty(), "the second room is still shared");
    carol.leave(&two).await;
    let lists = carol.sync(Some(for_carol)).await.device_lists;
    assert!(
        lists.left.is_empty() && lists.changed.is_empty(),
        "nobody learns who is in a room by turning it down"
    );
    // Bob, away, misses that others come; of them he has never heard.
    let for_bob = bob.sync(None).await.next;
    bob.leave(&two).await;
    carol.join(&two).await;
    assert_eq!(bob.sync(Some(for_bob)).await.device_lists.left, std::slice::from_ref(&alice.id));
}

#[tokio::test]
async fn changes_between_two_tokens() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let from = bob.sync(None).await.next;
    alice.say(&room, "nothing new").await;
    let to = bob.sync(Some(from)).await.next;
    let upload = KeyUpload { device_keys: Some(device_keys(&alice)), ..KeyUpload::default() };
    house.accounts.upload_keys(&alice.id, "D".into(), upload).await.unwrap();
    alice.leave(&room).await;
    let between = async |to| house.delivery.device_lists(&bob.id, from, to).await.unwrap();
    assert_eq!(between(Some(to)).await, DeviceLists::default(), "all of that came later");
    assert_eq!(between(None).await.left, std::slice::from_ref(&alice.id));
    assert!(matches!(house.delivery.device_lists(&bob.id, to, Some(from)).await, Err(Error::BadToken)));
}

#[tokio::test]
async fn a_filter_of_rooms_hides_nobodys_devices() {
    let house = House::new();
    let (alice, bob, carol) = (house.user("alice").await, house.user("bob").await, house.user("carol").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let without = json!({"room": {"not_rooms": [room]}});
    let first = bob.filtered(None, without.clone()).await;
    alice.say(&room, "nobody moves").await;
    let second = bob.filtered(Some(first.next), without.clone()).await;
    assert_eq!(second.device_lists, DeviceLists::default());
    carol.join(&room).await;
    let third = bob.filtered(Some(second.next), without.clone()).await;
    assert!(third.joined.is_empty());
    assert_eq!(third.device_lists.changed, std::slice::from_ref(&carol.id));
    carol.leave(&room).await;
    let fourth = bob.filtered(Some(third.next), without).await;
    assert!(fourth.joined.is_empty());
    assert_eq!(fourth.device_lists.left, std::slice::from_ref(&carol.id));
}

#[tokio::test]
async fn who_is_out_by_no_event_is_told_by_a_room_that_is_not_wanted() {
    let house = House::new();
    let (alice, bob, carol) = (house.user("alice").await, house.user("bob").await, house.user("carol").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let said = alice.say(&room, "read this").await;
    let without = json!({"room": {"not_rooms": [room]}});
    let token = bob.filtered(None, without.clone()).await.next;
    taken_out(&house, &room, &carol).await;
    // Nobody is woken by that, but the room is looked at when somebody reads on.
    alice.read(&room, &said).await;
    let lists = bob.filtered(Some(token), without).await.device_lists;
    assert_eq!(lists.left, std::slice::from_ref(&carol.id));
}

#[tokio::test]
async fn the_keys_of_a_device_that_was_ended_are_not_those_of_the_next_of_its_name() {
    let house = House::new();
    let alice = house.user("alice").await;
    let key = to_raw_value(&json!({"key": "one", "signatures": {}})).unwrap();
    let id: OwnedOneTimeKeyId = "signed_curve25519:ONE".to_owned().try_into().unwrap();
    let upload = KeyUpload { one_time_keys: [(id, Raw::from_json(key))].into(), ..KeyUpload::default() };
    house.accounts.upload_keys(&alice.id, "D".into(), upload).await.unwrap();
    let left = |delta: &Delta| delta.keys.one_time_keys[&OneTimeKeyAlgorithm::SignedCurve25519];
    let first = alice.sync(None).await;
    assert_eq!(left(&first), 1);
    house.accounts.log_out(&alice.id, "D".into()).await.unwrap();
    house.accounts.ensure_device(&alice.id, "D".into(), None).await.unwrap();
    assert_eq!(left(&alice.sync(Some(first.next)).await), 0);
}
