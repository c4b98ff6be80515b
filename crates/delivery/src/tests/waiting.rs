//! Waiting: who is woken, and what it costs not to be.

use std::time::Duration;

use ruma::user_id;
use serde_json::json;

use super::house::{House, gist, values};
use crate::Config;

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_waiting_device_gets_what_happens() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let mut request = bob.request(Some(bob.sync(None).await.next), json!({}));
    request.timeout = LONG;
    let (delta, _) = tokio::join!(house.delivery.sync(&request), alice.say(&room, "wake up"));
    assert_eq!(gist(&delta.unwrap().joined[&room].part.timeline.events), ["wake up"]);
}

#[tokio::test]
async fn a_waiting_device_hears_of_its_first_room() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let mut request = bob.request(Some(bob.sync(None).await.next), json!({}));
    request.timeout = LONG;
    let invited = [&bob];
    let (delta, room) = tokio::join!(house.delivery.sync(&request), alice.room(&invited));
    let delta = delta.unwrap();
    assert!(delta.invited.contains_key(&room));
    bob.join(&room).await;
    let joined = bob.sync(Some(delta.next)).await;
    request.since = Some(joined.next);
    let (delta, _) = tokio::join!(house.delivery.sync(&request), alice.say(&room, "hello"));
    assert_eq!(gist(&delta.unwrap().joined[&room].part.timeline.events), ["hello"]);
}

#[tokio::test]
async fn typing_begins_and_ends() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    let mut request = bob.request(Some(bob.sync(None).await.next), json!({"presence": {"types": []}}));
    request.timeout = LONG;
    let typing = house.delivery.typing();
    let short = Some(Duration::from_millis(20));
    let (delta, set) = tokio::join!(house.delivery.sync(&request), typing.set_local(&room, &alice.id, short));
    assert!(set.unwrap());
    let delta = delta.unwrap();
    let event = &values(&delta.joined[&room].ephemeral)[0];
    assert_eq!(event["content"]["user_ids"], json!([alice.id]));
    request.since = Some(delta.next);
    let delta = house.delivery.sync(&request).await.unwrap();
    assert_eq!(values(&delta.joined[&room].ephemeral)[0]["content"]["user_ids"], json!([]));
    let stranger = house.user("carol").await;
    assert!(!typing.set_local(&room, &stranger.id, Some(LONG)).await.unwrap());
}

#[tokio::test]
async fn those_whose_membership_is_still_to_come_are_seen_typing() {
    let house = House::new();
    let room = house.user("alice").await.room(&[]).await;
    let typing = house.delivery.typing();
    let (bob, carol) = (user_id!("@bob:b.example"), user_id!("@carol:c.example"));
    assert!(!typing.set_remote(&room, bob, true).await.unwrap());
    let reader = house.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let old = reader.room_head(nid).await.unwrap();
    let mut tx = chappe_store::Tx::new();
    tx.replace_head(nid, &old, &chappe_store::RoomHead { partial: true, ..old.clone() });
    let servers = vec![bob.server_name().to_owned()];
    let (prev, via) = (Vec::new(), bob.server_name().to_owned());
    tx.begin_partial(nid, &chappe_store::partial::PartialRoom { join: 1, prev, via, servers });
    house.store.commit(tx).await.unwrap();
    assert!(typing.set_remote(&room, bob, true).await.unwrap());
    assert!(!typing.set_remote(&room, carol, true).await.unwrap(), "nobody of c.example is in the room");
    let stranger = house.user("dan").await;
    assert!(!typing.set_local(&room, &stranger.id, Some(LONG)).await.unwrap());
}

#[tokio::test]
async fn presence_reaches_those_who_share_a_room() {
    let house = House::new();
    let carol = house.user("carol").await;
    let (alice, bob, room) = house.couple().await;
    let (for_bob, for_carol) = (bob.sync(None).await.next, carol.sync(None).await.next);
    let said = Some("busy".to_owned());
    house
        .delivery
        .presence()
        .set_local(&alice.id, ruma::presence::PresenceState::Unavailable, said)
        .await
        .unwrap();
    let told = values(&bob.sync(Some(for_bob)).await.presence);
    assert_eq!((&told[0]["sender"], &told[0]["content"]["status_msg"]), (&json!(alice.id), &json!("busy")));
    assert!(carol.sync(Some(for_carol)).await.presence.is_empty());
    carol.join(&room).await;
    let told = values(&carol.sync(Some(for_carol)).await.presence);
    assert!(told.iter().any(|event| event["sender"] == alice.id.as_str()), "whom one meets, one hears of");
}

#[tokio::test(start_paused = true)]
async fn presence_that_is_switched_off_is_forgotten() {
    let house = House::new();
    let alice = house.user("alice").await;
    let presence = house.delivery.presence();
    let says = async || {
        let state = ruma::presence::PresenceState::Online;
        presence.set_local(&alice.id, state, None).await.unwrap();
        presence.of(&alice.id).is_some()
    };
    assert!(says().await);
    house.delivery.reconfigure(Config { presence: false, ..Config::default() });
    tokio::time::sleep(LONG).await;
    assert!(presence.of(&alice.id).is_none() && !says().await);
    house.delivery.reconfigure(Config::default());
    assert!(says().await);
}

#[tokio::test]
async fn a_first_sync_tells_who_is_there_in_the_rooms_of_the_user() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let (carol, dave) = (house.user("carol").await, house.user("dave").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    alice.sync(None).await;
    dave.sync(None).await;
    // Carol has left word and never syncs.
    let said = Some("back on Monday".to_owned());
    let offline = ruma::presence::PresenceState::Offline;
    house.delivery.presence().set_local(&carol.id, offline, said).await.unwrap();
    let told = values(&bob.sync(None).await.presence);
    let of = |who: &str| told.iter().find(|event| event["sender"] == who).map(|event| &event["content"]);
    assert_eq!(of(alice.id.as_str()).unwrap()["presence"], "online");
    assert_eq!(of(carol.id.as_str()).unwrap()["status_msg"], "back on Monday");
    assert!(of(dave.id.as_str()).is_none(), "who shares no room");
}

#[tokio::test]
async fn deciding_that_nothing_happened_reads_nothing() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    let elsewhere = bob.room(&[]).await;
    let mut request = alice.request(Some(alice.sync(None).await.next), json!({}));
    // Settles what was handed out and the first look.
    request.since = Some(house.delivery.sync(&request).await.unwrap().next);
    request.timeout = LONG;
    let _ = house.trips.take();
    let waiting = house.delivery.sync(&request);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    assert_eq!(house.trips.take(), (0, 0, 0));
    bob.say(&elsewhere, "not for alice").await;
    let _ = house.trips.take();
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    assert_eq!(house.trips.take(), (0, 0, 0), "others' rooms cost nothing");
    alice.say(&room, "for alice").await;
    assert_eq!(gist(&waiting.await.unwrap().joined[&room].part.timeline.events), ["for alice"]);
}

#[tokio::test]
async fn stopping_ends_the_wait() {
    let house = House::new();
    let alice = house.user("alice").await;
    let mut request = alice.request(Some(alice.sync(None).await.next), json!({}));
    request.timeout = LONG;
    let (delta, _) =
        tokio::join!(house.delivery.sync(&request), house.world.shut_down(Duration::from_secs(5)));
    assert!(delta.unwrap().is_empty());
}

#[tokio::test]
async fn a_sync_that_comes_too_late_does_not_hold_up_the_stop() {
    let house = House::new();
    let alice = house.user("alice").await;
    let request = alice.request(Some(alice.sync(None).await.next), json!({}));
    let mut stop = std::pin::pin!(house.world.shut_down(LONG));
    assert!(futures_util::poll!(stop.as_mut()).is_pending());
    // From here on nobody follows the log.
    tokio::task::yield_now().await;
    alice.room(&[]).await;
    assert!(matches!(house.delivery.sync(&request).await, Err(crate::Error::Stopping)));
    assert!(stop.await.is_empty());
}

#[tokio::test]
async fn tokens_of_the_future_and_of_others_are_refused() {
    let house = House::new();
    let alice = house.user("alice").await;
    let mut next = alice.sync(None).await.next;
    next.position.0 += 1_000;
    assert!(matches!(
        house.delivery.sync(&alice.request(Some(next), json!({}))).await,
        Err(crate::Error::BadToken)
    ));
}

#[tokio::test]
async fn telling_many_of_a_message_reads_the_room_once() {
    let house = House::new();
    let alice = house.user("alice").await;
    let room = alice.room(&[]).await;
    let mut devices = Vec::new();
    for n in 0..10 {
        let person = house.user(&format!("user{n}")).await;
        person.join(&room).await;
        devices.push(person);
    }
    let mut requests = Vec::new();
    for person in &devices {
        let first = person.sync(None).await;
        requests.push(person.request(Some(person.sync(Some(first.next)).await.next), json!({})));
    }
    let mut costs = Vec::new();
    for round in 0..3 {
        alice.say(&room, &round.to_string()).await;
        for request in &mut requests {
            let _ = house.trips.take();
            let delta = house.delivery.sync(request).await.unwrap();
            assert_eq!(delta.joined[&room].unread.total.notifications, round + 1);
            request.since = Some(delta.next);
            costs.push(house.trips.take());
        }
    }
    // The first of the members pays for the room; nobody pays for themselves once they are known.
    let (first, others) = (costs[20], &costs[21..]);
    assert!(first.0 + first.1 <= 12, "{first:?}");
    assert!(others.iter().all(|cost| *cost == (0, 0, 0)), "{others:?}");
}

#[tokio::test]
async fn a_waiting_sync_is_small() {
    let house = House::new();
    let alice = house.user("alice").await;
    let request = alice.request(None, json!({}));
    let size = size_of_val(&house.delivery.sync(&request));
    assert!(size < 4_096, "{size} bytes");
}
