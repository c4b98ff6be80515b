//! Who hears of whose presence, and what it costs.

use std::{collections::BTreeSet, time::Duration};

use chappe_store::{EventNum, Membership, Tx, members::MemberChange};
use ruma::{OwnedUserId, RoomId, UserId, device_id, presence::PresenceState as Is};
use serde_json::json;

use super::house::{House, Person, gist, values};
use crate::{Delta, PresenceChange, PresenceState, SyncRequest, SyncToken, presence::CHANGED};

/// Makes a user of another server join or leave a room.
async fn place(house: &House, room: &RoomId, user: &UserId, (old, new): (Option<Membership>, Membership)) {
    let reader = house.store.read();
    let nid = reader.room_nid(room).await.unwrap().unwrap();
    let before = reader.room_head(nid).await.unwrap();
    let (mut head, mut tx) = (before.clone(), Tx::new());
    let change = MemberChange { user: user.to_owned(), local: false, old, new: Some((new, EventNum(1))) };
    tx.change_member(nid, &mut head, &change).replace_head(nid, &before, &head);
    house.store.commit(tx).await.unwrap();
}

/// So many users of another server, joined to a room.
async fn crowd(house: &House, room: &RoomId, count: usize) -> Vec<OwnedUserId> {
    let of_room = room.as_str().replace(['!', ':'], "");
    let name = |number| UserId::parse(format!("@{of_room}{number}:b.example")).unwrap();
    let crowd: Vec<OwnedUserId> = (0..count).map(name).collect();
    for user in &crowd {
        place(house, room, user, (None, Membership::Join)).await;
    }
    crowd
}

async fn appear(house: &House, user: &UserId) {
    change(house, user, Is::Online).await;
}

async fn change(house: &House, user: &UserId, state: Is) {
    let last_active = house.world.instant();
    let state = PresenceState { state, status_msg: None, last_active, currently_active: true };
    house.delivery.presence().set_remote(user, state).await.unwrap();
}

/// Of whom somebody is told, and how they are.
async fn told(person: &Person<'_>, since: Option<SyncToken>) -> Vec<(OwnedUserId, Is)> {
    presence(&person.sync(since).await)
}

fn presence(delta: &Delta) -> Vec<(OwnedUserId, Is)> {
    let part = |event: &serde_json::Value| {
        let user = UserId::parse(event["sender"].as_str().unwrap()).unwrap();
        (user, event["content"]["presence"].as_str().unwrap().into())
    };
    values(&delta.presence).iter().map(part).collect()
}

/// A request that waits for a while.
fn waiting(person: &Person<'_>, since: SyncToken) -> SyncRequest {
    SyncRequest { timeout: Duration::from_secs(10), ..person.request(Some(since), json!({})) }
}

#[tokio::test(start_paused = true)]
async fn many_changes_wake_those_who_wait_once_a_second() {
    let house = House::new();
    let bob = house.user("bob").await;
    let room = bob.room(&[]).await;
    let many = crowd(&house, &room, 50).await;
    let mut request = waiting(&bob, bob.sync(None).await.next);
    let changes = async {
        for user in &many {
            appear(&house, user).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waits = async {
        let (mut answers, mut heard) = (0, BTreeSet::new());
        loop {
            let delta = house.delivery.sync(&request).await.unwrap();
            if delta.presence.is_empty() {
                return (answers, heard);
            }
            answers += 1;
            heard.extend(presence(&delta).into_iter().map(|(user, _)| user));
            let before = request.since.replace(delta.next).unwrap();
            assert!(before.fleeting < delta.next.fleeting);
        }
    };
    let ((), (answers, heard)) = tokio::join!(changes, waits);
    assert!(answers <= 12, "{answers} answers in five seconds");
    assert!(heard.is_superset(&many.into_iter().collect()), "the last are told though nothing follows");
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_told_goes_with_a_message() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let crowd = crowd(&house, &room, 3).await;
    let online = |nth: usize| vec![(crowd[nth].clone(), Is::Online)];
    let first = bob.sync(None).await.next;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let request = waiting(&bob, first);
    let (alone, ()) = tokio::join!(house.delivery.sync(&request), appear(&house, &crowd[0]));
    let (alone, begun) = (alone.unwrap(), house.world.instant());
    assert_eq!(presence(&alone), online(0), "one alone is told at once");
    appear(&house, &crowd[1]).await;
    let request = waiting(&bob, alone.next);
    let (both, _) = tokio::join!(house.delivery.sync(&request), alice.say(&room, "hello"));
    let both = both.unwrap();
    assert_eq!(gist(&both.joined[&room].part.timeline.events), ["hello"]);
    assert_eq!((presence(&both), house.world.instant()), (online(1), begun));
    appear(&house, &crowd[2]).await;
    let later = house.delivery.sync(&waiting(&bob, both.next)).await.unwrap();
    assert_eq!(presence(&later), online(2));
    assert!(house.world.instant() - begun < Duration::from_secs(2), "though nothing else happens");
    assert_eq!(presence(&house.delivery.sync(&waiting(&bob, later.next)).await.unwrap()), []);
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_told_holds_up_no_stop() {
    let house = House::new();
    let bob = house.user("bob").await;
    let room = bob.room(&[]).await;
    bob.sync(None).await;
    for user in crowd(&house, &room, 2).await {
        appear(&house, &user).await;
        tokio::task::yield_now().await;
    }
    assert!(house.world.shut_down(Duration::from_millis(100)).await.is_empty());
}

#[tokio::test]
async fn whom_one_does_not_meet_costs_a_sync_nothing() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let (shared, other) = (alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&shared).await;
    let (near, far) = (crowd(&house, &shared, 2).await, crowd(&house, &other, 50).await);
    alice.sync(None).await;
    let since = bob.sync(None).await.next;
    // What the first later sync looks up is known to those after it.
    let since = bob.sync(Some(since)).await.next;
    for user in far.iter().chain(&near) {
        appear(&house, user).await;
    }
    house.trips.take();
    let online: Vec<_> = near.into_iter().map(|user| (user, Is::Online)).collect();
    assert_eq!(told(&bob, Some(since)).await, online);
    assert_eq!(house.trips.take(), (0, 0, 0), "what a user hears of is known when it happens");
    let again = told(&bob, None).await;
    assert!(
        online.iter().all(|one| again.contains(one)) && !again.iter().any(|(user, _)| far.contains(user))
    );
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_hears_who_came_and_who_went() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    let (carol, dave) = (house.user("carol").await, house.user("dave").await);
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let away = crowd(&house, &room, 1).await.remove(0);
    alice.sync(None).await;
    dave.sync(None).await;
    let since = bob.sync(None).await.next;
    tokio::time::sleep(Duration::from_mins(7)).await;
    assert_eq!(house.delivery.attached(), 0);
    carol.sync(None).await;
    appear(&house, &away).await;
    let mut told = told(&bob, Some(since)).await;
    told.sort();
    let mut due = [
        (alice.id.clone(), Is::Offline),
        (bob.id.clone(), Is::Online),
        (carol.id.clone(), Is::Online),
        (away, Is::Online),
    ];
    due.sort();
    assert_eq!(told, due, "and nothing of dave, who shares no room");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_long_has_not_gone() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    bob.join(&alice.room(&[]).await).await;
    let next = alice.sync(None).await.next;
    bob.sync(None).await;
    let quiet = json!({ "presence": { "types": [] } });
    let waits = SyncRequest { timeout: Duration::from_secs(100), ..alice.request(Some(next), quiet) };
    let online = || house.delivery.presence().of(&alice.id).unwrap().state == Is::Online;
    let looks = async {
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert!(online());
    };
    let (answer, ()) = tokio::join!(house.delivery.sync(&waits), looks);
    answer.unwrap();
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert!(!online(), "but who has hung up");
}

#[tokio::test]
async fn more_than_is_remembered_is_found_by_the_rooms() {
    let house = House::new();
    let bob = house.user("bob").await;
    let room = bob.room(&[]).await;
    let many = crowd(&house, &room, CHANGED + 1).await;
    let since = bob.sync(None).await.next;
    for user in &many {
        appear(&house, user).await;
    }
    assert_eq!(told(&bob, Some(since)).await.len(), many.len());
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_again_is_told_to_nobody() {
    let house = House::new();
    let bob = house.user("bob").await;
    let room = bob.room(&[]).await;
    let user = crowd(&house, &room, 1).await.remove(0);
    bob.sync(None).await;
    appear(&house, &user).await;
    let since = bob.sync(None).await.next;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let again = house.world.instant();
    appear(&house, &user).await;
    assert_eq!(house.delivery.presence().of(&user).unwrap().last_active, again);
    assert_eq!(told(&bob, Some(since)).await, []);
    change(&house, &user, Is::Unavailable).await;
    assert_eq!(told(&bob, Some(since)).await, [(user, Is::Unavailable)]);
}

#[tokio::test(start_paused = true)]
async fn who_is_in_no_room_is_told_to_nobody() {
    let house = House::new();
    let bob = house.user("bob").await;
    let room = bob.room(&[]).await;
    let user = crowd(&house, &room, 1).await.remove(0);
    let mut news = house.delivery.presence().news();
    appear(&house, &UserId::parse("@made-up:far.example").unwrap()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(news.try_recv().is_err());
    appear(&house, &user).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = news.try_recv().unwrap();
    assert_eq!(told.iter().map(|change| &change.user).collect::<Vec<_>>(), [&user]);
}

#[tokio::test(start_paused = true)]
async fn whom_their_server_says_nothing_of_any_more_is_offline() {
    let house = House::new();
    let bob = house.user("bob").await;
    let room = bob.room(&[]).await;
    let user = crowd(&house, &room, 1).await.remove(0);
    let since = bob.sync(None).await.next;
    let mut news = house.delivery.presence().news();
    appear(&house, &user).await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    appear(&house, &user).await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    let now = house.delivery.presence().of(&user).unwrap();
    assert_eq!(now.state, Is::Online, "it was said again in between");
    tokio::time::sleep(Duration::from_mins(11)).await;
    let mut last = None;
    while let Ok(some) = news.try_recv() {
        last = some.iter().find(|change| change.user == user).cloned().or(last);
    }
    let last = last.unwrap();
    assert_eq!((last.now.state, last.local), (Is::Offline, false));
    assert!(told(&bob, Some(since)).await.contains(&(user, Is::Offline)));
}

#[tokio::test(start_paused = true)]
async fn other_servers_are_told_again_of_who_is_still_there() {
    let house = House::new();
    let (alice, bob) = (house.user("alice").await, house.user("bob").await);
    bob.join(&alice.room(&[]).await).await;
    let known = house.delivery.presence();
    let mut news = known.news();
    let begun = house.world.instant();
    let there = known.sync((&*alice.id, None), &Is::Unavailable).await.unwrap();
    let first = news.recv().await.unwrap();
    assert_eq!((&first[0].user, first[0].again), (&alice.id, false));
    let hidden = |since| SyncRequest { presence: Is::Offline, ..bob.request(since, json!({})) };
    let since = house.delivery.sync(&hidden(None)).await.unwrap().next;
    let second = news.recv().await.unwrap();
    assert_eq!(*second, [PresenceChange { again: true, ..first[0].clone() }]);
    let minutes = (house.world.instant() - begun).as_secs() / 60;
    assert_eq!(minutes, 25);
    let delta = house.delivery.sync(&hidden(Some(since))).await.unwrap();
    assert_eq!(presence(&delta), [], "for clients it is no change");
    drop(there);
    let third = news.recv().await.unwrap();
    assert_eq!((&third[0].now.state, third[0].again), (&Is::Offline, false));
    assert!(tokio::time::timeout(Duration::from_hours(1), news.recv()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_while_nobody_is_there_is_found_later() {
    let house = House::new();
    let bob = house.user("bob").await;
    let room = bob.room(&[]).await;
    let mut away = crowd(&house, &room, 2).await;
    let (user, stranger) = (away.remove(0), away.remove(0));
    bob.sync(None).await;
    appear(&house, &user).await;
    let since = bob.sync(None).await.next;
    tokio::time::sleep(Duration::from_mins(7)).await;
    assert_eq!(house.delivery.attached(), 0);
    change(&house, &user, Is::Unavailable).await;
    appear(&house, &stranger).await;
    let (hidden, begun) =
        (SyncRequest { presence: Is::Offline, ..waiting(&bob, since) }, house.world.instant());
    let delta = house.delivery.sync(&hidden).await.unwrap();
    assert!(presence(&delta).contains(&(user, Is::Unavailable)));
    assert_eq!(house.world.instant(), begun, "it waits for nothing else to happen");
    assert!(house.delivery.presence().of(&stranger).is_none(), "nobody could see them");
}

#[tokio::test]
async fn a_sync_is_no_choice() {
    let house = House::new();
    let alice = house.user("alice").await;
    let presence = house.delivery.presence();
    let sync = async |state: Is| drop(presence.sync((&*alice.id, None), &state).await.unwrap());
    let now = || presence.of(&alice.id).unwrap().state;
    sync(Is::Unavailable).await;
    sync(Is::Online).await;
    assert_eq!(now(), Is::Online);
    presence.set_local(&alice.id, Is::Unavailable, None).await.unwrap();
    sync(Is::Online).await;
    assert_eq!(now(), Is::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn of_several_devices_the_liveliest_counts() {
    let house = House::new();
    let alice = house.user("alice").await;
    let (presence, wake) = (house.delivery.presence(), &house.delivery.0.wake);
    let (idle, other) = ((&*alice.id, Some(device_id!("IDLE"))), (&*alice.id, Some(device_id!("OTHER"))));
    let idles = async || drop(presence.sync(idle, &Is::Unavailable).await.unwrap());
    let now = || presence.of(&alice.id).unwrap().state;
    presence.set_local(&alice.id, Is::Online, None).await.unwrap();
    let told = wake.fleeting();
    for wait in [1, 1, 30, 100, 100] {
        let there = presence.sync(other, &Is::Online).await.unwrap();
        tokio::time::sleep(Duration::from_secs(wait)).await;
        idles().await;
        drop(there);
        idles().await;
    }
    assert_eq!((now(), wake.fleeting()), (Is::Online, told), "nobody is woken");
    let waits = presence.sync(idle, &Is::Unavailable).await.unwrap();
    tokio::time::sleep(Duration::from_secs(46)).await;
    idles().await;
    assert_eq!(now(), Is::Unavailable, "the other one comes back no more");
    drop(waits);
    for state in [Is::Online, Is::Unavailable] {
        presence.set_local(&alice.id, state.clone(), None).await.unwrap();
        assert_eq!(now(), state, "what is said counts at once");
    }
    presence.set_local(&alice.id, Is::Online, None).await.unwrap();
    for state in [Is::Online, Is::Unavailable, Is::Online] {
        drop(presence.sync(other, &state).await.unwrap());
        assert_eq!(now(), state, "and so does what the same device says");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_the_last_to_come_does_not_speak_for_one_that_is_still_there() {
    let house = House::new();
    let alice = house.user("alice").await;
    let presence = house.delivery.presence();
    let (first, last) = ((&*alice.id, Some(device_id!("FIRST"))), (&*alice.id, Some(device_id!("LAST"))));
    let idles = async || drop(presence.sync(last, &Is::Unavailable).await.unwrap());
    let now = || presence.of(&alice.id).unwrap().state;
    let waits = presence.sync(first, &Is::Online).await.unwrap();
    drop(presence.sync(last, &Is::Online).await.unwrap());
    idles().await;
    assert_eq!(now(), Is::Online);
    tokio::time::sleep(Duration::from_mins(1)).await;
    idles().await;
    assert_eq!(now(), Is::Online, "for as long as the other one waits");
    drop(waits);
    idles().await;
    assert_eq!(now(), Is::Online, "and until it had the time to come back");
    tokio::time::sleep(Duration::from_secs(46)).await;
    idles().await;
    assert_eq!(now(), Is::Unavailable);
    let own = presence.sync(last, &Is::Online).await.unwrap();
    idles().await;
    drop(own);
    idles().await;
    assert_eq!(now(), Is::Unavailable, "its own request from before holds it up no longer than it lasts");
}

#[tokio::test]
async fn nothing_is_heard_of_whoever_has_left() {
    let house = House::new();
    let bob = house.user("bob").await;
    let eve = house.user("eve").await;
    let (room, other) = (bob.room(&[]).await, eve.room(&[]).await);
    let user = crowd(&house, &room, 1).await.remove(0);
    eve.sync(None).await;
    let since = bob.sync(None).await.next;
    place(&house, &room, &user, (Some(Membership::Join), Membership::Leave)).await;
    place(&house, &other, &user, (None, Membership::Join)).await;
    appear(&house, &user).await;
    assert_eq!(told(&bob, Some(since)).await, []);
    assert_eq!(told(&bob, Some(SyncToken { fleeting: 0, ..since })).await, [(bob.id.clone(), Is::Online)]);
}
