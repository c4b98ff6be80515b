//! Joins of rooms whose members follow behind: what works meanwhile, what waits, and what is judged again.

mod claims;
mod late;
mod told;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chappe_kv::{Db, Memory};
use chappe_rules::retention::Policy;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId,
    room_version_rules::RoomVersionRules, server_name,
};
use serde_json::{Map, Value, json, value::RawValue};
use tokio::time::advance;

use super::{
    malformed::signed_in,
    net::{ALICE, BOB, CAROL, Net, actor, bodies, join, membership, room, say, state, user, whole_state},
};
use crate::{Change, Config, Draft, Error, JoinAnswer, MembersRequest, Rooms};

const BERT: &str = "@bert:b.example";

/// The current state of a room by event ids.
type State = BTreeMap<(String, String), OwnedEventId>;

fn via(server: &str) -> Vec<OwnedServerName> {
    vec![server.try_into().unwrap()]
}

/// Alice's room on `a`, with Bob and Bert on `b`; `c` does not know it yet, and nobody tells states.
async fn prepared(net: &Net) -> (Rooms, Rooms, OwnedRoomId) {
    let levels = json!({ "users": { ALICE: 100, BOB: 50, CAROL: 50 } });
    let power = json!({ "type": "m.room.power_levels", "content": levels });
    let body =
        json!({ "preset": "public_chat", "name": "Salon", "room_version": "11", "initial_state": [power] });
    let (a, b, id) = net.couple(body).await;
    b.join(&actor(BERT), &id, Vec::new(), Map::new()).await.unwrap();
    net.deliver().await;
    *net.partial_joins.lock() = true;
    net.silent.lock().extend(["a.example", "b.example"].map(|name| OwnedServerName::try_from(name).unwrap()));
    (a, b, id)
}

/// Carol joins through `a`, which leaves the members out.
async fn joined(net: &Net, c: &Rooms, id: &RoomId) {
    join(c, CAROL, id).await;
    net.deliver().await;
}

/// The servers of [`prepared`], and `c`, of which Carol has just joined.
async fn three(net: &Net) -> ([Rooms; 3], OwnedRoomId) {
    let (a, b, id) = prepared(net).await;
    let c = net.server("c.example", 3);
    joined(net, &c, &id).await;
    ([a, b, c], id)
}

async fn is_partial(rooms: &Rooms, id: &RoomId) -> bool {
    rooms.view(id).await.unwrap().head.partial
}

async fn servers(rooms: &Rooms, id: &RoomId) -> Vec<String> {
    let view = rooms.view(id).await.unwrap();
    let servers = view.reader.room_servers(view.nid).await.unwrap();
    servers.into_iter().map(|(server, _)| server.to_string()).collect()
}

async fn complete(net: &Net, rooms: &Rooms, id: &RoomId) {
    net.silent.lock().clear();
    rooms.0.try_complete(id).await.unwrap();
    assert!(!is_partial(rooms, id).await);
}

/// An event of a user of `b`, resting on what it likes.
pub(super) struct Lie<'a> {
    pub(super) sender: &'a str,
    pub(super) kind: &'a str,
    pub(super) key: Option<&'a str>,
    pub(super) content: Value,
    pub(super) prev: OwnedEventId,
    pub(super) auth: Vec<OwnedEventId>,
}

/// It as it is sent.
fn signed(id: &RoomId, lie: &Lie<'_>) -> Box<RawValue> {
    let mut event = json!({
        "type": lie.kind, "sender": lie.sender, "room_id": id, "content": lie.content, "depth": 20,
        "origin_server_ts": 1_000, "prev_events": [lie.prev], "auth_events": lie.auth,
    });
    if let Some(key) = lie.key {
        event["state_key"] = key.into();
    }
    let event: CanonicalJsonObject = match CanonicalJsonValue::try_from(event).unwrap() {
        CanonicalJsonValue::Object(event) => event,
        _ => unreachable!(),
    };
    signed_in(&RoomVersionRules::V11, event)
}

pub(super) async fn tell(to: &Rooms, id: &RoomId, lie: Lie<'_>) -> OwnedEventId {
    let outcome = to.receive(server_name!("b.example"), vec![signed(id, &lie)]).await.pop().unwrap();
    outcome.result.unwrap();
    outcome.event_id.unwrap()
}

pub(super) fn at(state: &State, kind: &str, key: &str) -> OwnedEventId {
    state[&(kind.to_owned(), key.to_owned())].clone()
}

#[tokio::test(start_paused = true)]
async fn a_user_is_in_the_room_before_its_members_are_known() {
    let net = Net::default();
    let ([a, b, c], id) = three(&net).await;
    assert!(is_partial(&c, &id).await);
    assert_eq!(membership(&c, &id, CAROL).await, Some("join"));
    assert_eq!(membership(&c, &id, BOB).await, None);
    assert_eq!(servers(&c, &id).await, ["a.example", "b.example", "c.example"]);
    say(&c, CAROL, &id, "from c").await;
    net.deliver().await;
    say(&b, BOB, &id, "from b").await;
    net.deliver().await;
    for rooms in [&a, &b, &c] {
        let said = bodies(rooms, &id).await;
        assert_eq!(said[said.len() - 2..], ["from c", "from b"]);
    }
    let stranger = user("@dan:d.example");
    let asked = c.make_join(server_name!("d.example"), &id, &stranger, crate::VERSIONS).await;
    assert!(matches!(asked, Err(Error::NotFound("room"))), "{asked:?}");
    complete(&net, &c, &id).await;
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
    assert_eq!(servers(&c, &id).await, ["a.example", "b.example", "c.example"]);
    let nid = c.view(&id).await.unwrap().nid;
    assert!(c.store().read().partial_room(nid).await.unwrap().is_none());
    say(&c, CAROL, &id, "on").await;
    net.deliver().await;
    assert_eq!(bodies(&a, &id).await.last().unwrap(), "on");
    let asked = c.make_join(server_name!("d.example"), &id, &stranger, crate::VERSIONS).await;
    assert!(asked.is_ok(), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn questions_about_members_wait_and_those_of_strangers_are_refused_at_once() {
    let net = Net::default();
    let ([.., c], id) = three(&net).await;
    let stranger = c.members(&actor("@dan:c.example"), &id, &MembersRequest::default()).await;
    assert!(matches!(stranger, Err(Error::Forbidden(_))), "{stranger:?}");
    let limit = c.config().join_timeout_seconds;
    let late = c.joined_members(&actor(CAROL), &id).await;
    assert!(matches!(late, Err(Error::Unreachable)), "nobody helped within {limit} seconds: {late:?}");
    net.silent.lock().clear();
    let members = c.joined_members(&actor(CAROL), &id).await.unwrap();
    let members: Vec<_> = members.keys().map(ToString::to_string).collect();
    assert_eq!(members, [ALICE, BERT, BOB, CAROL]);
    let topic = c.state_event(&actor(CAROL), &id, "m.room.member".into(), BOB).await;
    assert!(topic.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_members_does_not_wait_for_the_end_of_a_long_pause() {
    let net = Net::default();
    let ([.., c], id) = three(&net).await;
    // Nobody helps for so long that it is hardly tried any more.
    tokio::time::sleep(Duration::from_hours(2)).await;
    net.silent.lock().clear();
    let asked = tokio::time::Instant::now();
    c.joined_members(&actor(CAROL), &id).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_members_has_them_fetched_if_nobody_does() {
    let net = Net::default();
    let (_, _, id) = prepared(&net).await;
    let db = Db::new(Memory::default());
    joined(&net, &net.server_on("c.example", 3, db.clone()), &id).await;
    let c = net.server_on("c.example", 3, db);
    net.silent.lock().clear();
    c.joined_members(&actor(CAROL), &id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn somebody_who_is_not_known_yet_can_be_removed() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    net.silent.lock().clear();
    c.change(&actor(CAROL), &id, &user(BERT), Change::Kick, None).await.unwrap();
    net.deliver().await;
    assert_eq!(membership(&a, &id, BERT).await, Some("leave"));
}

#[tokio::test(start_paused = true)]
async fn fetching_goes_on_after_a_restart_and_asks_whoever_has_the_members() {
    let net = Net::default();
    let (a, b, id) = prepared(&net).await;
    let db = Db::new(Memory::default());
    let c = net.server_on("c.example", 3, db.clone());
    joined(&net, &c, &id).await;
    net.down.lock().insert("a.example".try_into().unwrap());
    let c = net.server_on("c.example", 3, db);
    assert!(c.0.try_complete(&id).await.is_err());
    c.resume_partial().await.unwrap();
    net.silent.lock().clear();
    let members = c.members(&actor(CAROL), &id, &MembersRequest::default()).await.unwrap();
    assert_eq!(members.len(), 4, "b.example told the state");
    assert!(!is_partial(&c, &id).await);
    net.down.lock().clear();
    for rooms in [&a, &b] {
        assert_eq!(whole_state(&c, &id).await, whole_state(rooms, &id).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_may_leave_and_come_back_meanwhile() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    c.leave(&actor(CAROL), &id, None).await.unwrap();
    net.deliver().await;
    assert_eq!(membership(&a, &id, CAROL).await, Some("leave"));
    joined(&net, &c, &id).await;
    assert_eq!(membership(&c, &id, CAROL).await, Some("join"));
    assert!(is_partial(&c, &id).await);
    joined(&net, &c, &id).await;
    c.join(&actor("@dan:c.example"), &id, via("a.example"), Map::new()).await.unwrap();
    net.deliver().await;
    complete(&net, &c, &id).await;
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

#[tokio::test(start_paused = true)]
async fn members_are_not_asked_for_by_whoever_follows_the_room_already() {
    let net = Net::default();
    let (a, _, id) = prepared(&net).await;
    *net.partial_only.lock() = true;
    let c = net.server("c.example", 3);
    joined(&net, &c, &id).await;
    c.join(&actor("@dan:c.example"), &id, via("a.example"), Map::new()).await.unwrap();
    c.leave(&actor(CAROL), &id, None).await.unwrap();
    net.deliver().await;
    joined(&net, &c, &id).await;
    assert!(is_partial(&c, &id).await);
    a.change(&actor(ALICE), &id, &user(CAROL), Change::Ban, None).await.unwrap();
    net.deliver().await;
    let banned = c.join(&actor(CAROL), &id, via("a.example"), Map::new()).await;
    assert!(banned.is_err(), "{banned:?}");
    complete(&net, &c, &id).await;
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_everybody_here_has_left_is_given_up() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    c.leave(&actor(CAROL), &id, None).await.unwrap();
    c.0.try_complete(&id).await.unwrap();
    assert!(!is_partial(&c, &id).await);
    assert!(servers(&c, &id).await.is_empty());
    joined(&net, &c, &id).await;
    assert!(!is_partial(&c, &id).await, "what is here of it knows no members");
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

#[tokio::test(start_paused = true)]
async fn a_room_is_not_given_up_while_somebody_is_back() {
    let net = Net::default();
    let ([.., c], id) = three(&net).await;
    let nid = c.view(&id).await.unwrap().nid;
    let partial = c.store().read().partial_room(nid).await.unwrap().unwrap();
    c.leave(&actor(CAROL), &id, None).await.unwrap();
    net.deliver().await;
    joined(&net, &c, &id).await;
    // As if whoever gives the room up had asked before she came back.
    assert!(c.0.give_up(&id, &partial).await.is_err());
    assert!(is_partial(&c, &id).await);
}

#[tokio::test(start_paused = true)]
async fn a_room_given_up_while_somebody_joins_comes_in_anew() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    let nid = c.view(&id).await.unwrap().nid;
    let partial = c.store().read().partial_room(nid).await.unwrap().unwrap();
    c.leave(&actor(CAROL), &id, None).await.unwrap();
    net.deliver().await;
    let (rooms, room, once) = (c.clone(), id.clone(), std::sync::Once::new());
    let twist = move |answer: JoinAnswer| {
        once.call_once(|| {
            futures_util::FutureExt::now_or_never(rooms.0.give_up(&room, &partial)).unwrap().unwrap();
        });
        answer
    };
    *net.twist.lock() = Some(Arc::new(twist));
    c.join(&actor("@dan:c.example"), &id, via("a.example"), Map::new()).await.unwrap();
    net.deliver().await;
    assert!(!is_partial(&c, &id).await);
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

#[tokio::test(start_paused = true)]
async fn members_left_out_without_a_word_of_the_servers_are_refused() {
    let net = Net::default();
    let (_, _, id) = prepared(&net).await;
    let c = net.server("c.example", 3);
    let twist = |mut answer: JoinAnswer| {
        answer.servers_in_room = None;
        answer
    };
    *net.twist.lock() = Some(Arc::new(twist));
    let refused = c.join(&actor(CAROL), &id, via("a.example"), Map::new()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(membership_of_nobody(&c, &id).await);
}

async fn membership_of_nobody(rooms: &Rooms, id: &RoomId) -> bool {
    match rooms.view(id).await {
        Ok(view) => view.head.joined == 0,
        Err(_) => true,
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_yet_is_learned_from_who_speaks() {
    let net = Net::default();
    let ([a, _, c], id) = three(&net).await;
    let topic = json!({ "topic": "news" });
    a.send(&actor(ALICE), &id, state("m.room.topic", "", &topic), None).await.unwrap();
    let said = say(&a, ALICE, &id, "said").await;
    net.deliver().await;
    assert_eq!(membership(&c, &id, ALICE).await, Some("join"));
    assert!(whole_state(&c, &id).await.contains_key(&("m.room.topic".to_owned(), String::new())));
    a.send(&actor(ALICE), &id, Draft::redaction(&said, None), None).await.unwrap();
    net.deliver().await;
    complete(&net, &c, &id).await;
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
    let view = c.view(&id).await.unwrap();
    let num = view.reader.event_num(view.nid, &said).await.unwrap().unwrap();
    assert_eq!(view.load_one(num).await.unwrap().pdu.content().get(), "{}");
}

/// What a room whose members follow behind says of its lifetime is one server's word: nothing is taken off the disk for it.
#[tokio::test(start_paused = true)]
async fn nothing_expires_for_good_before_the_room_is_whole() {
    const DAY: Duration = Duration::from_hours(24);
    let net = Net::default();
    let (_, _, id) = prepared(&net).await;
    let retention = Some(Policy { default_days: 7, minimum_days: 1, maximum_days: 0 });
    let config = Config { retention, ..Config::default() };
    let c = net.server_with("c.example", 3, Db::new(Memory::default()), config);
    joined(&net, &c, &id).await;
    say(&c, CAROL, &id, "mine").await;
    net.deliver().await;
    advance(8 * DAY).await;
    c.expire_due().await.unwrap();
    assert!(is_partial(&c, &id).await);
    assert_eq!(bodies(&c, &id).await, ["mine"]);
    complete(&net, &c, &id).await;
    advance(DAY).await;
    c.expire_due().await.unwrap();
    assert!(bodies(&c, &id).await.is_empty());
}

/// Who is in a club is asked of a server that knows its members.
#[tokio::test(start_paused = true)]
async fn nobody_is_taken_for_a_stranger_while_the_members_are_to_come() {
    let net = Net::default();
    let (_, _, club) = prepared(&net).await;
    let c = net.server("c.example", 3);
    joined(&net, &c, &club).await;
    assert!(is_partial(&c, &club).await);
    let known = room(&c, CAROL, json!({ "room_version": "11" })).await;
    for rooms in [vec![&club], vec![&known, &club], vec![&club, &known]] {
        let inner = restricted_to(&c, &rooms).await;
        let unknown = asks(&c, &inner, BOB).await;
        assert!(matches!(unknown, Err(Error::UnableToAuthoriseJoin)), "{unknown:?}");
    }
    let inner = restricted_to(&c, &[&known, &club]).await;
    complete(&net, &c, &club).await;
    assert!(asks(&c, &inner, BOB).await.is_ok());
    let stranger = asks(&c, &inner, "@sam:b.example").await;
    assert!(matches!(stranger, Err(Error::Forbidden(_))), "{stranger:?}");
    // Somebody else may know who is in another room.
    let elsewhere = ruma::room_id!("!elsewhere:b.example").to_owned();
    let stranger = asks(&c, &restricted_to(&c, &[&club, &elsewhere]).await, "@sam:b.example").await;
    assert!(matches!(stranger, Err(Error::UnableToAuthoriseJoin)), "{stranger:?}");
}

async fn restricted_to(c: &Rooms, rooms: &[&OwnedRoomId]) -> OwnedRoomId {
    let allow: Vec<Value> =
        rooms.iter().map(|room| json!({ "type": "m.room_membership", "room_id": room })).collect();
    let rule = json!({ "join_rule": "restricted", "allow": allow });
    let rule = json!({ "type": "m.room.join_rules", "content": rule });
    room(c, CAROL, json!({ "initial_state": [rule], "room_version": "11" })).await
}

/// Has another server's user ask for a template of a join.
async fn asks(c: &Rooms, room: &RoomId, who: &str) -> crate::Result<crate::Template> {
    c.make_join(user(who).server_name(), room, &user(who), crate::VERSIONS).await
}
