//! Where a connection goes on: places, what was asked for, waiting.

use std::time::Duration;

use super::{LONG, ask, next, pattern, state, timeline, two, window};
use crate::{Error, List, SlidingRequest, ToDeviceAsk, tests::house::House};

#[tokio::test]
async fn the_same_place_gives_the_same_again_and_nothing_else_does() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&bob, 9, ask(5, &[]));
    let first = next(&house, &mut request).await;
    alice.say(&room, "one").await;
    let lost = house.delivery.sliding_sync(&request).await.unwrap();
    assert_eq!(timeline(&lost.rooms[&room]), ["one"]);
    let again = next(&house, &mut request).await;
    assert_eq!(timeline(&again.rooms[&room]), ["one"], "the first answer may not have arrived");
    next(&house, &mut request).await;
    for old in [first.pos, lost.pos, "s1_0_0_c1_1_0-0".to_owned(), "x".to_owned()] {
        let request = SlidingRequest { pos: Some(old.clone()), ..request.clone() };
        let refused = house.delivery.sliding_sync(&request).await;
        assert!(matches!(refused, Err(Error::UnknownPos)), "{old}");
    }
    let stolen = SlidingRequest { pos: request.pos.clone(), ..window(&alice, 9, ask(5, &[])) };
    assert!(matches!(house.delivery.sliding_sync(&stolen).await, Err(Error::UnknownPos)));
    house.delivery.0.connections.forget(&(bob.id.clone(), "D".into()));
    assert!(matches!(house.delivery.sliding_sync(&request).await, Err(Error::UnknownPos)));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_ended_waits_no_longer() {
    let house = House::new();
    let (alice, _) = two(&house).await;
    let mut request = window(&alice, 9, ask(1, &[]));
    next(&house, &mut request).await;
    next(&house, &mut request).await;
    request.timeout = LONG;
    let begun = house.world.instant();
    let ends = house.accounts.log_out(&alice.id, "D".into());
    let (answer, ended) = tokio::join!(house.delivery.sliding_sync(&request), ends);
    ended.unwrap();
    assert!(answer.unwrap().rooms.is_empty());
    assert_eq!(house.world.instant(), begun);
}

#[tokio::test]
async fn what_is_wanted_is_remembered_by_its_mark() {
    let house = House::new();
    let (alice, _) = two(&house).await;
    let room = alice.room(&[]).await;
    let mut request = window(&alice, 9, ask(1, &["m.room.create"]));
    next(&house, &mut request).await;
    request.lists.get_mut("all").unwrap().ask.timeline_limit = 0;
    assert!(next(&house, &mut request).await.rooms.is_empty(), "less of the timeline is no news");
    request.lists.get_mut("all").unwrap().ask = ask(0, &["m.room.power_levels"]);
    let answer = next(&house, &mut request).await;
    assert_eq!(state(&answer.rooms[&room])[0]["type"], "m.room.power_levels");
    assert!(next(&house, &mut request).await.rooms.is_empty());
    for n in 0..20 {
        let mut more = ask(0, &["m.room.create"]);
        more.state.exclude.insert(pattern(&n.to_string(), None));
        request.lists.insert(n.to_string(), List { ask: more, ..request.lists["all"].clone() });
    }
    assert!(next(&house, &mut request).await.rooms.contains_key(&room));
    assert!(next(&house, &mut request).await.rooms.is_empty(), "of many parts there is one mark");
}

#[tokio::test]
async fn a_new_connection_is_answered_and_a_known_one_waits() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let mut request = window(&alice, 9, ask(1, &[]));
    request.timeout = LONG;
    request.extensions.e2ee = true;
    request.extensions.to_device = Some(ToDeviceAsk::default());
    let first = next(&house, &mut request).await;
    assert!(first.rooms.is_empty(), "nothing to send, and still an answer");
    request.extensions.to_device =
        Some(ToDeviceAsk { since: Some(first.extensions.to_device.unwrap().next_batch), limit: None });
    let room = alice.room(&[]).await;
    assert!(next(&house, &mut request).await.rooms.contains_key(&room));
    request.timeout = Duration::ZERO;
    let quiet = next(&house, &mut request).await;
    request.extensions.to_device =
        Some(ToDeviceAsk { since: Some(quiet.extensions.to_device.unwrap().next_batch), limit: None });
    request.timeout = LONG;
    let _ = house.trips.take();
    let elsewhere = bob.room(&[]).await;
    let _ = house.trips.take();
    let pos = {
        let waiting = house.delivery.sliding_sync(&request);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert_eq!(house.trips.take(), (0, 0, 0), "deciding that nothing is new reads nothing");
        bob.say(&elsewhere, "not for alice").await;
        let _ = house.trips.take();
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert_eq!(house.trips.take(), (0, 0, 0));
        alice.say(&room, "for alice").await;
        let answer = waiting.await.unwrap();
        assert_eq!(timeline(&answer.rooms[&room]), ["for alice"]);
        answer.pos
    };
    request.pos = Some(pos);
    let (answer, _) =
        tokio::join!(house.delivery.sliding_sync(&request), house.world.shut_down(Duration::from_secs(5)));
    assert!(answer.unwrap().rooms.is_empty());
}
