//! Sliding sync: windows, rooms, what is told when.

use std::{collections::BTreeMap, time::Duration};

use chappe_rooms::Change;
use ruma::{OwnedRoomId, RoomId, events::receipt::ReceiptThread, presence::PresenceState};
use serde_json::{Value, json};

use super::house::{House, Person, gist, values};
use crate::{
    Error, ExtensionsAsk, List, ListFilters, Pattern, RoomAsk, Scope, SlidingAnswer, SlidingRequest,
    SlidingRoom, ToDeviceAsk, WantedState,
};

const LONG: Duration = Duration::from_mins(1);

fn pattern(kind: &str, key: Option<&str>) -> Pattern {
    Pattern { kind: Some(kind.to_owned()), key: key.map(str::to_owned) }
}

pub(super) fn ask(limit: usize, kinds: &[&str]) -> RoomAsk {
    let include = kinds.iter().map(|kind| pattern(kind, Some(""))).collect();
    RoomAsk { timeline_limit: limit, state: WantedState { include, lazy: true, ..WantedState::default() } }
}

/// One list of the first rooms.
pub(super) fn window(person: &Person<'_>, last: usize, ask: RoomAsk) -> SlidingRequest {
    let list = List { ranges: Some(vec![(0, last)]), ask, filters: ListFilters::default() };
    SlidingRequest {
        user: person.id.clone(),
        device: Some(person.device.into()),
        connection: "c".to_owned(),
        pos: None,
        lists: BTreeMap::from([("all".to_owned(), list)]),
        subscriptions: BTreeMap::new(),
        extensions: ExtensionsAsk::default(),
        presence: PresenceState::Online,
        timeout: Duration::ZERO,
    }
}

/// Asks, and goes on from the answer.
pub(super) async fn next(house: &House, request: &mut SlidingRequest) -> SlidingAnswer {
    let answer = house.delivery.sliding_sync(request).await.unwrap();
    request.pos = Some(answer.pos.clone());
    answer
}

fn timeline(room: &SlidingRoom) -> Vec<String> {
    room.part.as_ref().map(|part| gist(&part.timeline.events)).unwrap_or_default()
}

fn state(room: &SlidingRoom) -> Vec<Value> {
    room.part.as_ref().map(|part| values(part.state.events())).unwrap_or_default()
}

fn members(room: &SlidingRoom) -> Vec<String> {
    let members = state(room).into_iter().filter(|event| event["type"] == "m.room.member");
    members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect()
}

async fn two(house: &House) -> (Person<'_>, Person<'_>) {
    (house.user("alice").await, house.user("bob").await)
}

#[tokio::test]
async fn a_window_has_the_last_active_rooms_and_grows() {
    let house = House::new();
    let (alice, _) = two(&house).await;
    let mut rooms = Vec::new();
    for _ in 0..5 {
        rooms.push(alice.room(&[]).await);
    }
    alice.say(&rooms[0], "up").await;
    let mut request = window(&alice, 1, ask(1, &[]));
    let first = next(&house, &mut request).await;
    assert_eq!(first.counts["all"], 5);
    assert_eq!(first.rooms.keys().collect::<Vec<_>>().len(), 2);
    assert!(first.rooms.contains_key(&rooms[0]) && first.rooms.contains_key(&rooms[4]));
    let room = &first.rooms[&rooms[0]];
    assert!(room.initial && room.part.as_ref().unwrap().timeline.limited && room.live == 0);
    assert_eq!(timeline(room), ["up"]);
    request.lists.get_mut("all").unwrap().ranges = Some(vec![(0, 99)]);
    let second = next(&house, &mut request).await;
    assert_eq!(second.rooms.len(), 3, "those that were told are not told again");
    assert!(next(&house, &mut request).await.rooms.is_empty());
    alice.say(&rooms[2], "news").await;
    let third = next(&house, &mut request).await;
    let told = &third.rooms[&rooms[2]];
    assert_eq!((third.rooms.len(), told.initial, told.live), (1, false, 1));
    assert_eq!(timeline(told), ["news"]);
    assert!(!told.part.as_ref().unwrap().timeline.limited);
}

#[tokio::test]
async fn a_room_that_left_the_window_is_told_what_it_missed() {
    let house = House::new();
    let (alice, _) = two(&house).await;
    let (one, two) = (alice.room(&[]).await, alice.room(&[]).await);
    alice.say(&one, "begin").await;
    let mut request = window(&alice, 0, ask(2, &["m.room.topic"]));
    assert!(next(&house, &mut request).await.rooms.contains_key(&one));
    alice.set(&one, "m.room.topic", json!({"topic": "missed"})).await;
    for n in 0..3 {
        alice.say(&one, &n.to_string()).await;
    }
    alice.say(&two, "in front").await;
    let answer = next(&house, &mut request).await;
    assert_eq!(answer.rooms.keys().collect::<Vec<_>>(), [&two]);
    alice.say(&one, "back").await;
    let answer = next(&house, &mut request).await;
    let room = &answer.rooms[&one];
    assert!(!room.initial && room.part.as_ref().unwrap().timeline.limited);
    assert_eq!(timeline(room), ["2", "back"]);
    assert_eq!(state(room)[0]["content"]["topic"], "missed");
    assert_eq!(room.live, 1, "only the last one came since the device asked");
}

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

#[tokio::test]
async fn members_come_as_they_are_needed_and_once() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let carol = house.user("carol").await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    carol.join(&room).await;
    alice.say(&room, "hello").await;
    let mut asked = ask(1, &["m.room.create"]);
    asked.state.include.insert(pattern("m.room.member", Some(bob.id.as_str())));
    let mut request = window(&bob, 9, asked);
    let first = next(&house, &mut request).await;
    let told = &first.rooms[&room];
    assert_eq!(members(told), [alice.id.as_str(), bob.id.as_str()]);
    assert!(state(told).iter().any(|event| event["type"] == "m.room.create"));
    alice.say(&room, "again").await;
    assert_eq!(members(&next(&house, &mut request).await.rooms[&room]), [""; 0], "known by now");
    carol.say(&room, "me too").await;
    let answer = house.delivery.sliding_sync(&request).await.unwrap();
    assert_eq!(members(&answer.rooms[&room]), [carol.id.as_str()]);
    let again = next(&house, &mut request).await;
    assert_eq!(members(&again.rooms[&room]), [carol.id.as_str()], "the answer may not have arrived");
    carol.leave(&room).await;
    let left = next(&house, &mut request).await;
    assert_eq!(members(&left.rooms[&room]), [carol.id.as_str()], "what changes is told");
    assert_eq!(left.rooms[&room].members, Some((2, 0)));
}

#[tokio::test]
async fn more_of_the_timeline_and_of_the_state_comes_at_once() {
    let house = House::new();
    let (alice, _) = two(&house).await;
    let room = alice.room(&[]).await;
    alice.set(&room, "m.room.topic", json!({"topic": "t"})).await;
    for n in 0..5 {
        alice.say(&room, &n.to_string()).await;
    }
    let mut request = window(&alice, 9, ask(1, &["m.room.create"]));
    next(&house, &mut request).await;
    request.subscriptions.insert(room.clone(), ask(3, &["m.room.topic"]));
    request.timeout = LONG;
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert!(told.expanded && !told.initial && told.live == 0);
    assert_eq!(timeline(told), ["2", "3", "4"]);
    let kinds: Vec<_> = state(told).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["m.room.topic"], "the create event was told before");
    request.timeout = Duration::ZERO;
    assert!(next(&house, &mut request).await.rooms.is_empty());
    request.subscriptions.clear();
    next(&house, &mut request).await;
    request.subscriptions.insert(room.clone(), ask(3, &[]));
    assert!(next(&house, &mut request).await.rooms.is_empty(), "the device has those three");
}

#[tokio::test]
async fn names_pictures_and_heroes() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&alice, 9, ask(1, &[]));
    let first = next(&house, &mut request).await;
    let told = &first.rooms[&room];
    assert_eq!((&told.name, told.members), (&Some(None), Some((2, 0))));
    assert_eq!(told.heroes[0].user, bob.id);
    alice.say(&room, "said").await;
    let bump = next(&house, &mut request).await.rooms[&room].bump;
    alice.set(&room, "m.room.name", json!({"name": "named"})).await;
    let named = next(&house, &mut request).await;
    let told = &named.rooms[&room];
    assert_eq!((&told.name, &told.avatar), (&Some(Some("named".to_owned())), &None));
    assert_eq!(told.bump, bump, "a name is nothing that was said");
    alice.set(&room, "m.room.name", json!({})).await;
    let unnamed = next(&house, &mut request).await;
    assert_eq!(unnamed.rooms[&room].name, Some(None));
    assert_eq!(unnamed.rooms[&room].heroes[0].user, bob.id);
}

#[tokio::test]
async fn invites_tell_what_may_be_known() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let mut request = window(&bob, 9, ask(9, &["m.room.create"]));
    next(&house, &mut request).await;
    let room = alice.room(&[&bob]).await;
    alice.say(&room, "not for the invited").await;
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert!(told.part.is_none() && told.unread.is_none() && told.heroes.is_empty());
    let stripped = values(told.stripped.as_ref().unwrap());
    assert!(stripped.iter().any(|event| event["state_key"] == bob.id.as_str()));
    assert!(next(&house, &mut request).await.rooms.is_empty());
    bob.join(&room).await;
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert!(told.initial && told.stripped.is_none() && !state(told).is_empty());
    let ignored = json!({"ignored_users": {alice.id.as_str(): {}}}).to_string();
    let content = serde_json::value::RawValue::from_string(ignored).unwrap();
    let scope = chappe_accounts::Scope::Global;
    house.accounts.set_account_data(&bob.id, scope, "m.ignored_user_list", &content).await.unwrap();
    alice.room(&[&bob]).await;
    let answer = next(&house, &mut request).await;
    assert_eq!((answer.rooms.len(), answer.counts["all"]), (0, 1), "invites of the ignored are not there");
}

/// Invites of `person` to rooms elsewhere.
async fn invited_elsewhere(person: &Person<'_>, count: usize) {
    let member = json!({"type": "m.room.member", "sender": "@x:b.example", "state_key": person.id, "room_id": "!r:b.example",
        "content": {"membership": "invite"}, "origin_server_ts": 1, "depth": 1, "auth_events": [], "prev_events": [],
        "hashes": {"sha256": ""}, "signatures": {}});
    let mut tx = chappe_store::Tx::new();
    for n in 0..count {
        let what = chappe_store::out_of_band::OutOfBand {
            membership: "invite".to_owned(),
            event: serde_json::value::to_raw_value(&member).unwrap(),
            event_id: format!("$invite{n}"),
            state: Vec::new(),
            version: Some("11".to_owned()),
            via: Vec::new(),
            number: None,
        };
        let room = OwnedRoomId::try_from(format!("!r{n}:b.example")).unwrap();
        tx.put_out_of_band(&person.id, &room, &what);
    }
    person.house.store.commit(tx).await.unwrap();
}

#[tokio::test]
async fn many_invites_are_told_once_and_hide_nothing() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    invited_elsewhere(&bob, 201).await;
    let mut request = window(&bob, 999, ask(1, &[]));
    let first = next(&house, &mut request).await;
    assert_eq!((first.rooms.len(), first.counts["all"]), (200, 202));
    let second = next(&house, &mut request).await;
    assert!(second.rooms.len() == 2 && second.rooms.contains_key(&room), "{:?}", second.rooms.keys());
    request.timeout = LONG;
    let waiting = house.delivery.sliding_sync(&request);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "the device has them all");
    alice.say(&room, "news").await;
    assert_eq!(waiting.await.unwrap().rooms.keys().collect::<Vec<_>>(), [&room]);
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
async fn data_stops_when_the_user_is_put_out() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&bob, 9, ask(9, &["m.room.topic"]));
    request.subscriptions.insert(room.clone(), ask(9, &["m.room.topic"]));
    request.extensions.typing = Some(Scope::default());
    request.extensions.receipts = Some(Scope::default());
    next(&house, &mut request).await;
    alice.change(&room, &bob, Change::Ban).await;
    let secret = alice.say(&room, "secret").await;
    alice.set(&room, "m.room.topic", json!({"topic": "secret"})).await;
    alice.set(&room, "m.room.name", json!({"name": "secret"})).await;
    let kind = ruma::api::client::receipt::create_receipt::v3::ReceiptType::Read;
    house.rooms.set_receipt(&alice.actor(), &room, &kind, &secret, &ReceiptThread::Unthreaded).await.unwrap();
    house.delivery.typing().set_local(&room, &alice.id, Some(LONG)).await.unwrap();
    let answer = next(&house, &mut request).await;
    let told = &answer.rooms[&room];
    assert_eq!((told.membership, timeline(told)), ("ban", vec!["m.room.member".to_owned()]));
    assert_eq!(members(told), [bob.id.as_str()]);
    assert!(told.name.is_none() && told.unread.is_none());
    assert!(answer.extensions.typing.is_empty() && answer.extensions.receipts.is_empty());
    alice.say(&room, "more").await;
    let answer = next(&house, &mut request).await;
    assert!(answer.rooms.is_empty() && answer.extensions.typing.is_empty());
    let mut fresh = window(&bob, 9, ask(9, &["m.room.topic", "m.room.name"]));
    fresh.connection = "other".to_owned();
    let answer = next(&house, &mut fresh).await;
    let text = format!("{:?}", answer.rooms[&room].part);
    assert!(!text.contains("secret") && !text.contains("more"), "{text}");
}

#[tokio::test]
async fn data_stops_and_begins_when_states_are_resolved() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    alice.change(&room, &bob, Change::Ban).await;
    alice.change(&room, &bob, Change::Unban).await;
    bob.join(&room).await;
    let token = bob.sync(None).await.next;
    let mut request = window(&bob, 9, ask(9, &[]));
    next(&house, &mut request).await;
    let (ban, join) = (super::house::memberships(&bob, &room).await).into_iter().fold(
        (None, None),
        |(ban, join), (kind, num)| match kind {
            chappe_store::Membership::Ban => (Some(num), join),
            chappe_store::Membership::Join => (ban, Some(num)),
            _ => (ban, join),
        },
    );
    for many in [false, true] {
        super::house::resolve(&bob, &room, (chappe_store::Membership::Ban, ban.unwrap()), many).await;
        alice.say(&room, "secret").await;
        let delta = bob.sync(Some(token)).await;
        assert!(delta.joined.is_empty() && delta.left.contains_key(&room));
        assert!(!format!("{delta:?}").contains("secret"));
        let answer = next(&house, &mut request).await;
        assert_eq!(answer.rooms[&room].membership, "ban");
        assert!(!format!("{answer:?}").contains("secret"));
        super::house::resolve(&bob, &room, (chappe_store::Membership::Join, join.unwrap()), many).await;
        alice.say(&room, "for all").await;
        let delta = bob.sync(Some(token)).await;
        assert!(format!("{:?}", delta.joined[&room]).contains("for all"), "whoever is merged in is told");
        let answer = next(&house, &mut request).await;
        assert!(timeline(&answer.rooms[&room]).contains(&"for all".to_owned()));
    }
}

#[tokio::test]
async fn a_forgotten_room_is_gone_at_once() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    alice.change(&room, &bob, Change::Kick).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    assert_eq!(next(&house, &mut request).await.counts["all"], 1, "others put the user out: it stays listed");
    let token = bob.sync(None).await.next;
    house.rooms.forget(&bob.id, &room).await.unwrap();
    assert_eq!(next(&house, &mut request).await.counts["all"], 0);
    assert!(bob.sync(Some(token)).await.is_empty());
}

#[tokio::test]
async fn tags_and_spaces_are_read_when_they_change() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let (space, one, two) = (alice.room(&[]).await, alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&one).await;
    let child = async |room: &RoomId| {
        let content = json!({"via": ["a.example"]}).as_object().unwrap().clone();
        let draft = chappe_rooms::Draft::state("m.space.child".to_owned(), room.as_str(), content);
        house.rooms.send(&alice.actor(), &space, draft, None).await.unwrap();
    };
    child(&one).await;
    let filters = ListFilters {
        spaces: Some([space.clone()].into()),
        not_tags: ["u.hidden".to_owned()].into(),
        ..ListFilters::default()
    };
    let mut request = window(&alice, 99, ask(1, &[]));
    request.lists.get_mut("all").unwrap().filters = filters;
    assert_eq!(next(&house, &mut request).await.rooms.keys().collect::<Vec<_>>(), [&one]);
    let mut plain = window(&alice, 99, ask(1, &[]));
    plain.connection = "plain".to_owned();
    next(&house, &mut plain).await;
    bob.say(&one, "news").await;
    next(&house, &mut request).await;
    next(&house, &mut plain).await;
    bob.say(&one, "more news").await;
    let _ = house.trips.take();
    next(&house, &mut plain).await;
    let without = house.trips.take();
    next(&house, &mut request).await;
    let with = house.trips.take();
    assert!(
        with.0 <= without.0 + 2 && with.1 <= without.1,
        "{with:?} {without:?}: filters read nothing again"
    );
    child(&two).await;
    assert!(next(&house, &mut request).await.rooms.contains_key(&two));
    let tag = |tags: &mut serde_json::Map<_, _>| drop(tags.insert("u.hidden".to_owned(), json!({})));
    house.accounts.update_tags(&alice.id, &one, tag).await.unwrap();
    assert_eq!(next(&house, &mut request).await.counts["all"], 1);
}

#[tokio::test]
async fn receipts_are_told_whatever_the_follower_knows_already() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let kind = ruma::api::client::receipt::create_receipt::v3::ReceiptType::Read;
    let read = async |event: &ruma::EventId| {
        let thread = ReceiptThread::Unthreaded;
        house.rooms.set_receipt(&bob.actor(), &room, &kind, event, &thread).await.unwrap();
    };
    read(&alice.say(&room, "one").await).await;
    let nid = house.store.read().room_nid(&room).await.unwrap().unwrap();
    let signal = house.delivery.0.wake.attach(&alice.id).await.unwrap();
    // The follower is ahead of the snapshot: the user's membership has changed since.
    let ahead = (true, chappe_store::Position(u64::MAX));
    signal.rooms.lock().insert(nid, ahead);
    let mut request = window(&alice, 9, ask(1, &[]));
    request.extensions.receipts = Some(Scope::default());
    assert!(next(&house, &mut request).await.extensions.receipts.contains_key(&room));
    let two = alice.say(&room, "two").await;
    read(&two).await;
    signal.rooms.lock().insert(nid, ahead);
    assert!(next(&house, &mut request).await.extensions.receipts[&room].get().contains(two.as_str()));
}

#[tokio::test]
async fn members_that_come_behind_are_told_to_those_who_want_them() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    alice.set(&room, "m.room.topic", json!({"topic": "t"})).await;
    alice.say(&room, "hello").await;
    let mut lazy = window(&alice, 9, ask(1, &["m.room.topic"]));
    let mut all = window(&alice, 9, ask(1, &[]));
    all.connection = "all".to_owned();
    all.lists.get_mut("all").unwrap().ask.state =
        WantedState { include: [pattern("m.room.member", None)].into(), ..WantedState::default() };
    for request in [&mut lazy, &mut all] {
        next(&house, request).await;
    }
    let reader = house.store.read();
    let nid = reader.room_nid(&room).await.unwrap().unwrap();
    let old = reader.room_head(nid).await.unwrap();
    let whole = chappe_store::RoomHead { whole_since: chappe_store::WholeSince::Now, ..old.clone() };
    let mut tx = chappe_store::Tx::new();
    tx.replace_head(nid, &old, &whole);
    tx.log(chappe_store::LogEntry::Whole { room: nid.0, servers: Vec::new() });
    house.store.commit(tx).await.unwrap();
    let told = next(&house, &mut all).await;
    assert!(told.rooms[&room].initial);
    assert_eq!(members(&told.rooms[&room]), [alice.id.as_str(), bob.id.as_str()]);
    let told = next(&house, &mut lazy).await;
    assert_eq!(members(&told.rooms[&room]), [""; 0], "a lazy client gets no more than it needs");
    assert_eq!(told.rooms[&room].members, Some((2, 0)));
    for request in [&mut lazy, &mut all] {
        assert!(next(&house, request).await.rooms.is_empty(), "once");
    }
}

#[tokio::test]
async fn what_is_read_elsewhere_is_counted_no_more() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    next(&house, &mut request).await;
    alice.say(&room, "one").await;
    let said = alice.say(&room, "two").await;
    let count = |answer: &SlidingAnswer| {
        answer.rooms.get(&room).and_then(|room| Some(room.unread.as_ref()?.total.notifications))
    };
    assert_eq!(count(&next(&house, &mut request).await), Some(2));
    let kind = ruma::api::client::receipt::create_receipt::v3::ReceiptType::Read;
    let read = async |by: &Person<'_>| {
        house.rooms.set_receipt(&by.actor(), &room, &kind, &said, &ReceiptThread::Main).await.unwrap();
    };
    read(&alice).await;
    assert_eq!(count(&next(&house, &mut request).await), None, "what others read is their business");
    request.timeout = LONG;
    let (answer, ()) = tokio::join!(house.delivery.sliding_sync(&request), read(&bob));
    let answer = answer.unwrap();
    assert_eq!(count(&answer), Some(0));
    let told = &answer.rooms[&room];
    assert!(!told.initial && told.part.is_none() && told.name.is_none(), "nothing else is new");
    (request.pos, request.timeout) = (Some(answer.pos), Duration::ZERO);
    assert_eq!(count(&next(&house, &mut request).await), None, "told once");
}

#[tokio::test]
async fn who_leaves_is_told_so_once() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    bob.join(&room).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    next(&house, &mut request).await;
    bob.leave(&room).await;
    let answer = next(&house, &mut request).await;
    assert_eq!((answer.rooms[&room].membership, answer.counts["all"]), ("leave", 0));
    let answer = next(&house, &mut request).await;
    assert_eq!((answer.rooms.len(), answer.counts["all"]), (0, 0));
    bob.join(&room).await;
    let answer = next(&house, &mut request).await;
    assert!(answer.rooms[&room].initial && answer.rooms[&room].part.as_ref().unwrap().timeline.limited);
}

#[tokio::test]
async fn rooms_of_others_are_not_there() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    request.subscriptions.insert(room.clone(), ask(9, &["m.room.create"]));
    request.subscriptions.insert(ruma::owned_room_id!("!nowhere:a.example"), ask(9, &[]));
    let answer = next(&house, &mut request).await;
    assert!(answer.rooms.is_empty());
}

fn filtered(person: &Person<'_>, filters: ListFilters) -> SlidingRequest {
    let mut request = window(person, 99, ask(0, &[]));
    request.lists.get_mut("all").unwrap().filters = filters;
    request
}

#[tokio::test]
async fn filters_choose_rooms() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let plain = alice.room(&[]).await;
    let secret = alice.room(&[]).await;
    alice.set(&secret, "m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2"})).await;
    let direct = alice.room(&[]).await;
    let content = json!({bob.id.as_str(): [direct]}).to_string();
    let content = serde_json::value::RawValue::from_string(content).unwrap();
    let scope = chappe_accounts::Scope::Global;
    house.accounts.set_account_data(&alice.id, scope, "m.direct", &content).await.unwrap();
    let invite = bob.room(&[&alice]).await;
    house
        .accounts
        .update_tags(&alice.id, &plain, |tags| drop(tags.insert("m.favourite".into(), json!({}))))
        .await
        .unwrap();
    let space = {
        let mut request = ruma::api::client::room::create_room::v3::Request::new();
        let creation = json!({"type": "m.space"}).to_string();
        request.creation_content = Some(serde_json::from_str(&creation).unwrap());
        house.rooms.create(&alice.actor(), request).await.unwrap()
    };
    let child = chappe_rooms::Draft::state(
        "m.space.child".to_owned(),
        secret.as_str(),
        json!({"via": ["a.example"]}).as_object().unwrap().clone(),
    );
    house.rooms.send(&alice.actor(), &space, child, None).await.unwrap();
    let found = async |filters: ListFilters| -> Vec<OwnedRoomId> {
        let answer = next(&house, &mut filtered(&alice, filters)).await;
        assert_eq!(answer.counts["all"], answer.rooms.len());
        answer.rooms.into_keys().collect()
    };
    let only = |room: &RoomId| vec![room.to_owned()];
    let none = ListFilters::default;
    assert_eq!(found(none()).await.len(), 5);
    assert_eq!(found(ListFilters { is_encrypted: Some(true), ..none() }).await, only(&secret));
    assert_eq!(found(ListFilters { is_dm: Some(true), ..none() }).await, only(&direct));
    assert_eq!(found(ListFilters { is_invite: Some(true), ..none() }).await, only(&invite));
    assert_eq!(found(ListFilters { is_invite: Some(false), ..none() }).await.len(), 4);
    let spaces = Some(Some("m.space".to_owned())).into_iter().collect();
    assert_eq!(found(ListFilters { room_types: Some(spaces), ..none() }).await, only(&space));
    let spaces = Some(Some("m.space".to_owned())).into_iter().collect();
    assert_eq!(found(ListFilters { not_room_types: spaces, ..none() }).await.len(), 4);
    assert_eq!(found(ListFilters { spaces: Some([space.clone()].into()), ..none() }).await, only(&secret));
    assert_eq!(
        found(ListFilters { tags: Some(["m.favourite".to_owned()].into()), ..none() }).await,
        only(&plain)
    );
    assert_eq!(found(ListFilters { not_tags: ["m.favourite".to_owned()].into(), ..none() }).await.len(), 4);
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

#[tokio::test]
async fn messages_for_the_device_are_told_until_it_has_them() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let mut request = window(&bob, 9, ask(1, &[]));
    request.extensions.to_device = Some(ToDeviceAsk { since: None, limit: Some(2) });
    next(&house, &mut request).await;
    for n in 0..3 {
        super::devices::message(&alice, &bob, &n.to_string()).await;
    }
    let bodies = |answer: &SlidingAnswer| -> Vec<Value> {
        let events = values(&answer.extensions.to_device.as_ref().unwrap().events);
        events.iter().map(|event| event["content"]["text"].clone()).collect()
    };
    let first = next(&house, &mut request).await;
    assert_eq!(bodies(&first), ["0", "1"]);
    let again = next(&house, &mut request).await;
    assert_eq!(bodies(&again), ["0", "1"], "not acknowledged yet");
    let since = again.extensions.to_device.map(|to_device| to_device.next_batch);
    request.extensions.to_device = Some(ToDeviceAsk { since, limit: Some(2) });
    request.timeout = LONG;
    let rest = next(&house, &mut request).await;
    assert_eq!(bodies(&rest), ["2"], "what lags behind does not wait");
    request.timeout = Duration::ZERO;
    let since = rest.extensions.to_device.map(|to_device| to_device.next_batch);
    request.extensions.to_device = Some(ToDeviceAsk { since, limit: None });
    assert_eq!(bodies(&next(&house, &mut request).await), [""; 0]);
    request.pos = None;
    request.extensions.to_device = Some(ToDeviceAsk::default());
    assert_eq!(bodies(&next(&house, &mut request).await), [""; 0], "what was acknowledged is gone");
    let future = Some(crate::Received::up_to(chappe_store::Position(u64::MAX)));
    request.extensions.to_device = Some(ToDeviceAsk { since: future, limit: None });
    assert!(matches!(house.delivery.sliding_sync(&request).await, Err(Error::BadToken)));
}

#[tokio::test]
async fn extensions_tell_of_the_rooms_of_the_window() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let (near, far) = (alice.room(&[]).await, alice.room(&[]).await);
    bob.join(&far).await;
    bob.join(&near).await;
    let said = alice.say(&near, "hello").await;
    let kind = ruma::api::client::receipt::create_receipt::v3::ReceiptType::Read;
    let read = async |person: &Person<'_>, room: &RoomId, event: &ruma::EventId| {
        let thread = ReceiptThread::Unthreaded;
        house.rooms.set_receipt(&person.actor(), room, &kind, event, &thread).await.unwrap();
    };
    read(&bob, &near, &said).await;
    for room in [&near, &far] {
        let set = |tags: &mut serde_json::Map<_, _>| drop(tags.insert("u.t".to_owned(), json!({})));
        house.accounts.update_tags(&alice.id, room, set).await.unwrap();
        house.delivery.typing().set_local(room, &bob.id, Some(LONG)).await.unwrap();
    }
    let mut request = window(&alice, 0, ask(1, &[]));
    let scope = Some(Scope::default());
    request.extensions = ExtensionsAsk {
        account_data: scope.clone(),
        receipts: scope.clone(),
        typing: scope,
        e2ee: true,
        ..ExtensionsAsk::default()
    };
    let first = next(&house, &mut request).await.extensions;
    let rooms = [&near];
    assert_eq!(first.typing.keys().collect::<Vec<_>>(), rooms);
    assert_eq!(first.receipts.keys().collect::<Vec<_>>(), rooms);
    assert_eq!(first.room_account_data.keys().collect::<Vec<_>>(), rooms);
    assert!(gist(&first.account_data).contains(&"m.push_rules".to_owned()));
    let quiet = next(&house, &mut request).await.extensions;
    assert!(quiet.typing.is_empty() && quiet.receipts.is_empty() && quiet.room_account_data.is_empty());
    let later = alice.say(&near, "more").await;
    read(&bob, &near, &later).await;
    house.delivery.typing().set_local(&near, &bob.id, None).await.unwrap();
    let carol = house.user("carol").await;
    carol.join(&far).await;
    let second = next(&house, &mut request).await;
    assert!(second.extensions.receipts[&near].get().contains(later.as_str()));
    assert_eq!(
        values(std::slice::from_ref(&second.extensions.typing[&near]))[0]["content"]["user_ids"],
        json!([])
    );
    let lists = second.extensions.e2ee.unwrap().lists;
    assert_eq!(lists.changed, std::slice::from_ref(&carol.id), "also of rooms beyond the window");
    carol.leave(&far).await;
    let lists = next(&house, &mut request).await.extensions.e2ee.unwrap().lists;
    assert_eq!(lists.left, [carol.id]);
}

#[tokio::test]
async fn followed_threads_are_told() {
    let house = House::new();
    let (alice, bob) = two(&house).await;
    let room = alice.room(&[]).await;
    let mut request = window(&alice, 0, ask(1, &[]));
    request.extensions.threads = Some(2);
    next(&house, &mut request).await;
    let mut roots = Vec::new();
    for n in 0..3 {
        let root = alice.say(&room, &n.to_string()).await;
        house.rooms.subscribe_to_thread(&alice.id, &room, &root, None).await.unwrap();
        roots.push(root);
    }
    house.rooms.unsubscribe_from_thread(&alice.id, &room, &roots[1]).await.unwrap();
    let page = next(&house, &mut request).await.extensions.threads;
    let told: Vec<_> = page.changes.iter().map(|change| (change.root.clone(), change.automatic)).collect();
    assert_eq!(told, [(roots[1].clone(), None), (roots[2].clone(), Some(false))]);
    let rest = house
        .rooms
        .thread_subscriptions(&alice.id, chappe_store::Position::default(), page.more, 9)
        .await
        .unwrap();
    assert_eq!((rest.changes.len(), &rest.changes[0].root, rest.more), (1, &roots[0], None));
    assert!(next(&house, &mut request).await.extensions.threads.changes.is_empty());
    request.timeout = LONG;
    let unsubscribing = house.rooms.unsubscribe_from_thread(&alice.id, &room, &roots[0]);
    let (answer, _) = tokio::join!(house.delivery.sliding_sync(&request), unsubscribing);
    assert_eq!(answer.unwrap().extensions.threads.changes.len(), 1, "a waiting device is woken");
    let stranger = house.rooms.subscribe_to_thread(&bob.id, &room, &roots[0], None).await;
    assert!(matches!(stranger, Err(chappe_rooms::Error::NotFound(_))));
}
