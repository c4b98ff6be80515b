//! Reads over rooms that were really written.

mod ignored;

use chappe_rules::client::Form;
use ruma::{
    OwnedEventId, RoomId,
    api::{Direction, client::filter::RoomEventFilter},
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Actor, Bundle, Change, Draft, Error, MembersRequest, PageRequest, Recurse, RelationsRequest,
    testing::{Town, actor, object},
};

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap()
}

fn bodies(chunk: &[Box<RawValue>]) -> Vec<String> {
    let body = |event: &RawValue| value(event)["content"]["body"].as_str().map(str::to_owned);
    chunk.iter().filter_map(|event| body(event)).collect()
}

async fn page(town: &Town, who: &Actor, room: &RoomId, request: PageRequest<'_>) -> crate::Page {
    town.rooms.messages(who, room, request).await.unwrap()
}

fn back<'a>(from: Option<&'a str>, limit: u64, filter: &'a RoomEventFilter) -> PageRequest<'a> {
    PageRequest { from, to: None, direction: Direction::Backward, limit, filter, relations: None }
}

#[tokio::test]
async fn messages_page_both_ways_without_gap_or_overlap() {
    let town = Town::new();
    let anna = actor("anna");
    let room = town.room(&anna, json!({})).await;
    for number in 0..25 {
        town.say(&anna, &room, json!({ "msgtype": "m.text", "body": number.to_string() })).await;
    }
    let mut filter = RoomEventFilter::default();
    filter.types = Some(vec!["m.room.mess*".to_owned()]);
    let (mut all, mut from): (Vec<String>, Option<String>) = (Vec::new(), None);
    for _ in 0..20 {
        let found = page(&town, &anna, &room, back(from.as_deref(), 7, &filter)).await;
        all.extend(bodies(&found.chunk));
        from = found.end;
        if from.is_none() {
            break;
        }
    }
    assert!(from.is_none(), "paging ends");
    assert_eq!(all, (0..25).rev().map(|number| number.to_string()).collect::<Vec<_>>());

    let first = page(&town, &anna, &room, back(None, 5, &filter)).await;
    let (start, end) = (first.start.clone(), first.end.clone().unwrap());
    let on = PageRequest {
        from: Some(&end),
        to: None,
        direction: Direction::Forward,
        limit: 100,
        filter: &filter,
        relations: None,
    };
    assert_eq!(bodies(&page(&town, &anna, &room, on).await.chunk), ["20", "21", "22", "23", "24"]);
    let until = PageRequest { to: Some(&end), ..back(Some(&start), 100, &filter) };
    assert_eq!(bodies(&page(&town, &anna, &room, until).await.chunk).len(), 5);
}

#[tokio::test]
async fn history_is_filtered_by_relation() {
    let town = Town::new();
    let anna = actor("anna");
    let room = town.room(&anna, json!({})).await;
    let asked = town.say(&anna, &room, json!({ "body": "root" })).await;
    for (body, rel_type) in [("reply", "m.thread"), ("vote", "m.reference")] {
        let relates = json!({ "rel_type": rel_type, "event_id": asked });
        town.say(&anna, &room, json!({ "body": body, "m.relates_to": relates })).await;
    }
    let mut filter = RoomEventFilter::default();
    filter.types = Some(vec!["m.room.message".to_owned()]);
    let seen = async |relations: Value| {
        let relations: crate::Relations = serde_json::from_value(relations).unwrap();
        let request = PageRequest { relations: Some(&relations), ..back(None, 9, &filter) };
        bodies(&page(&town, &anna, &room, request).await.chunk)
    };
    assert_eq!(seen(json!({})).await, ["vote", "reply", "root"]);
    assert_eq!(seen(json!({ "org.matrix.msc3874.rel_types": ["m.thread"] })).await, ["reply"]);
    assert_eq!(seen(json!({ "not_rel_types": ["m.thread"] })).await, ["vote", "root"]);
    assert_eq!(seen(json!({ "rel_types": [] })).await, [""; 0]);
}

#[tokio::test]
async fn at_the_beginning_of_a_room_there_is_its_creator() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let members = async |at| {
        let request = MembersRequest { at, ..MembersRequest::default() };
        town.rooms.members(&anna, &room, &request).await.unwrap().len()
    };
    assert_eq!((members(None).await, members(Some("t1")).await), (2, 1));
}

#[tokio::test]
async fn a_sync_token_is_a_place_in_the_timeline() {
    let town = Town::new();
    let anna = actor("anna");
    let room = town.room(&anna, json!({})).await;
    town.say(&anna, &room, json!({ "body": "old" })).await;
    let token = format!("c1_{}_0", town.store.read().position());
    town.say(&anna, &room, json!({ "body": "new" })).await;
    let filter = RoomEventFilter::default();
    let before = page(&town, &anna, &room, back(Some(&token), 1, &filter)).await;
    assert_eq!(bodies(&before.chunk), ["old"]);
    let on = PageRequest {
        from: Some(&token),
        to: None,
        direction: Direction::Forward,
        limit: 9,
        filter: &filter,
        relations: None,
    };
    assert_eq!(bodies(&page(&town, &anna, &room, on).await.chunk), ["new"]);
    let bad = town.rooms.messages(&anna, &room, back(Some("s12"), 1, &filter)).await;
    assert!(matches!(bad, Err(Error::InvalidParam(_))));
}

#[tokio::test]
async fn who_left_reads_up_to_the_end_and_strangers_nothing() {
    let town = Town::new();
    let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
    let room = town.room(&anna, json!({ "preset": "public_chat", "name": "old name" })).await;
    town.join(&bob, &room).await;
    town.say(&anna, &room, json!({ "body": "seen" })).await;
    town.rooms.leave(&bob, &room, None).await.unwrap();
    town.say(&anna, &room, json!({ "body": "unseen" })).await;
    town.set(&anna, &room, "m.room.name", "", json!({ "name": "new name" })).await;
    let filter = RoomEventFilter::default();
    let seen = page(&town, &bob, &room, back(None, 3, &filter)).await;
    assert_eq!(bodies(&seen.chunk), ["seen"]);
    let name = town.rooms.state_content(&bob, &room, StateEventType::RoomName, "").await.unwrap();
    assert_eq!(value(&name)["name"], "old name");
    let refused = town.rooms.messages(&carl, &room, back(None, 3, &filter)).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));
    assert!(matches!(town.rooms.state(&carl, &room).await, Err(Error::Forbidden(_))));
    assert!(matches!(town.rooms.joined_members(&bob, &room).await, Err(Error::Forbidden(_))));
    let unknown = ruma::room_id!("!nowhere:here.fr");
    assert!(matches!(town.rooms.state(&carl, unknown).await, Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn members_now_and_then() {
    let town = Town::new();
    let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let token = format!("c1_{}_0", town.store.read().position());
    town.join(&carl, &room).await;
    town.change(&anna, &room, &bob, Change::Ban).await;
    let count =
        async |request: MembersRequest<'_>| town.rooms.members(&anna, &room, &request).await.unwrap().len();
    assert_eq!(count(MembersRequest::default()).await, 3);
    let join = Some(MembershipState::Join);
    assert_eq!(count(MembersRequest { membership: join.clone(), ..MembersRequest::default() }).await, 2);
    assert_eq!(count(MembersRequest { not_membership: join.clone(), ..MembersRequest::default() }).await, 1);
    let then = MembersRequest { at: Some(&token), membership: join, ..MembersRequest::default() };
    assert_eq!(count(then).await, 2);
    assert_eq!(count(MembersRequest { at: Some(&token), ..MembersRequest::default() }).await, 2);
    let joined = town.rooms.joined_members(&anna, &room).await.unwrap();
    assert!(joined.contains_key(&anna.user) && joined.contains_key(&carl.user) && joined.len() == 2);
    assert_eq!(town.rooms.joined_rooms(&bob.user).await.unwrap(), Vec::<ruma::OwnedRoomId>::new());
    assert_eq!(town.rooms.joined_rooms(&anna.user).await.unwrap(), [room]);
}

#[tokio::test]
async fn unsigned_says_what_was_replaced_redacted_and_sent_from_here() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let room = town.room(&anna, json!({ "preset": "public_chat", "name": "one" })).await;
    town.join(&bob, &room).await;
    let draft = Draft::state(TimelineEventType::RoomName, "", object(json!({ "name": "two" })));
    let name = town.rooms.send(&anna, &room, draft, None).await.unwrap();
    let name = value(&town.rooms.event(&anna, &room, &name).await.unwrap());
    assert_eq!(name["unsigned"]["prev_content"]["name"], "one");
    assert_eq!(name["unsigned"]["membership"], "join");
    assert_eq!(name["room_id"], room.as_str());
    assert!(name["unsigned"]["age"].is_u64() && name["unsigned"]["replaces_state"].is_string());

    let draft = Draft::message(TimelineEventType::RoomMessage, object(json!({ "body": "oops" })));
    let said = town.rooms.send(&anna, &room, draft, Some("txn".into())).await.unwrap();
    assert_eq!(
        value(&town.rooms.event(&anna, &room, &said).await.unwrap())["unsigned"]["transaction_id"],
        "txn"
    );
    assert!(
        value(&town.rooms.event(&bob, &room, &said).await.unwrap())["unsigned"]["transaction_id"].is_null()
    );

    town.rooms.send(&anna, &room, Draft::redaction(&said, Some("why")), None).await.unwrap();
    let gone = value(&town.rooms.event(&bob, &room, &said).await.unwrap());
    assert_eq!(gone["content"], json!({}));
    assert_eq!(gone["unsigned"]["redacted_because"]["content"]["reason"], "why");
}

#[tokio::test]
async fn context_shows_both_sides() {
    let town = Town::new();
    let anna = actor("anna");
    let room = town.room(&anna, json!({})).await;
    let mut events: Vec<OwnedEventId> = Vec::new();
    for number in 0..9 {
        events.push(town.say(&anna, &room, json!({ "body": number.to_string() })).await);
    }
    let filter = RoomEventFilter::with_lazy_loading();
    let context = town.rooms.context(&anna, &room, &events[4], 4, &filter).await.unwrap();
    assert_eq!(bodies(&context.before), ["3", "2"]);
    assert_eq!(bodies(&context.after), ["5", "6"]);
    assert_eq!(value(&context.event)["event_id"], events[4].as_str());
    let members = context.state.iter().filter(|event| value(event)["type"] == "m.room.member").count();
    assert_eq!(members, 1);
    let more = page(&town, &anna, &room, back(Some(&context.start), 1, &filter)).await;
    assert_eq!((bodies(&more.chunk), more.state.len()), (vec!["1".to_owned()], 1));
    let alone = town.rooms.context(&anna, &room, &events[0], 0, &filter).await.unwrap();
    assert!(alone.before.is_empty() && alone.after.is_empty());
}

fn related<'a>(event: &'a OwnedEventId, rel_type: Option<&'a str>) -> RelationsRequest<'a> {
    RelationsRequest {
        event,
        rel_type,
        event_type: None,
        from: None,
        to: None,
        direction: Direction::Backward,
        limit: None,
        recurse: Recurse::No,
    }
}

#[tokio::test]
async fn relations_threads_and_edits_are_found_and_bundled() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let top = town.say(&anna, &room, json!({ "body": "root" })).await;
    let relate = |kind: &str, to: &OwnedEventId, body: &str| json!({ "body": body, "m.new_content": { "body": body }, "m.relates_to": { "rel_type": kind, "event_id": to } });
    town.say(&bob, &room, relate("m.replace", &top, "forged")).await;
    town.say(&anna, &room, relate("m.replace", &top, "edited")).await;
    let reply = town.say(&bob, &room, relate("m.thread", &top, "reply 1")).await;
    town.say(&bob, &room, relate("m.thread", &top, "reply 2")).await;
    town.say(&anna, &room, relate("m.annotation", &reply, "+1")).await;

    let bundled = value(&town.rooms.event(&anna, &room, &top).await.unwrap());
    let relations = &bundled["unsigned"]["m.relations"];
    assert_eq!(relations["m.replace"]["content"]["body"], "edited");
    assert_eq!(relations["m.thread"]["count"], 2);
    assert_eq!(relations["m.thread"]["latest_event"]["content"]["body"], "reply 2");
    assert_eq!(relations["m.thread"]["current_user_participated"], true);

    let threads = town.rooms.relations(&anna, &room, &related(&top, Some("m.thread"))).await.unwrap();
    assert_eq!(bodies(&threads.chunk), ["reply 2", "reply 1"]);
    let one = RelationsRequest { limit: Some(1), ..related(&top, None) };
    let first = town.rooms.relations(&anna, &room, &one).await.unwrap();
    assert_eq!(bodies(&first.chunk), ["reply 2"]);
    let next = RelationsRequest { from: first.next_batch.as_deref(), limit: Some(9), ..one };
    assert_eq!(
        bodies(&town.rooms.relations(&anna, &room, &next).await.unwrap().chunk),
        ["reply 1", "edited", "forged"]
    );
    let deep = RelationsRequest { recurse: Recurse::Yes, ..related(&top, None) };
    let deep = town.rooms.relations(&anna, &room, &deep).await.unwrap();
    assert_eq!((deep.chunk.len(), bodies(&deep.chunk)[0].as_str()), (5, "+1"));

    let include = "all".into();
    let listed = town.rooms.threads(&anna, &room, None, &include, None).await.unwrap();
    assert_eq!(value(&listed.chunk[0])["event_id"], top.as_str());
    let carl = actor("carl");
    let hidden = town.rooms.relations(&carl, &room, &related(&top, None)).await;
    assert!(matches!(hidden, Err(Error::NotFound("event"))));

    town.rooms.send(&bob, &room, Draft::redaction(&reply, None), None).await.unwrap();
    let seen = value(&town.rooms.event(&anna, &room, &top).await.unwrap());
    assert_eq!(seen["unsigned"]["m.relations"]["m.thread"]["count"], 1);
}

#[tokio::test]
async fn the_event_nearest_to_a_time_is_found() {
    let town = Town::new();
    let anna = actor("anna");
    let room = town.room(&anna, json!({})).await;
    let mut said = Vec::new();
    for number in 1..=5u32 {
        let content = object(json!({ "body": number.to_string() }));
        let mut draft = Draft::message(TimelineEventType::RoomMessage, content);
        draft.timestamp = Some(ruma::MilliSecondsSinceUnixEpoch(
            (1_900_000_000_000 + u64::from(number) * 1_000).try_into().unwrap(),
        ));
        said.push(town.rooms.send(&anna, &room, draft, None).await.unwrap());
    }
    let at = |ms: u64| ruma::MilliSecondsSinceUnixEpoch((1_900_000_000_000 + ms).try_into().unwrap());
    let find = async |ms, direction| {
        town.rooms.timestamp_to_event(&anna, &room, at(ms), direction).await.map(|found| found.0)
    };
    assert_eq!(find(2_500, Direction::Forward).await.unwrap(), said[2]);
    assert_eq!(find(2_500, Direction::Backward).await.unwrap(), said[1]);
    assert_eq!(find(3_000, Direction::Backward).await.unwrap(), said[2]);
    assert!(matches!(find(9_000, Direction::Forward).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn the_common_form_is_rendered_once() {
    let town = Town::new();
    let anna = actor("anna");
    let room = town.room(&anna, json!({})).await;
    let event = town.say(&anna, &room, json!({ "body": "é \" } \u{1F600}" })).await;
    let seen = town.rooms.visible_to_user(&anna.user, &room, &event).await.unwrap();
    let view = town.rooms.view(&room).await.unwrap();
    for form in [Form::Sync, Form::Full, Form::Federation] {
        let rendered = view.render(&anna, std::slice::from_ref(&seen), form, Bundle::None).await.unwrap();
        let rendered = value(&rendered[0]);
        assert_eq!(rendered["content"]["body"], "é \" } \u{1F600}");
        assert_eq!(rendered.get("room_id").is_some(), form != Form::Sync);
        assert_eq!(rendered["event_id"], event.as_str());
    }
}

#[tokio::test]
async fn who_was_there_before_ones_time_is_not_told_where_history_is_hidden() {
    let town = Town::new();
    let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    let hidden = json!({ "history_visibility": "joined" });
    town.set(&anna, &room, "m.room.history_visibility", "", hidden).await;
    town.join(&carl, &room).await;
    town.rooms.leave(&carl, &room, Some("a private matter".to_owned())).await.unwrap();
    town.say(&anna, &room, json!({ "body": "then" })).await;
    let filter = RoomEventFilter::default();
    let then = page(&town, &anna, &room, back(None, 1, &filter)).await.end.unwrap();
    town.join(&bob, &room).await;
    let joined = async |who: &Actor, at: &str| {
        let request = MembersRequest { at: Some(at), ..MembersRequest::default() };
        let members = town.rooms.members(who, &room, &request).await.unwrap();
        let members: Vec<Value> = members.iter().map(|event| value(event)).collect();
        let is_in = |event: &&Value| event["content"]["membership"] == "join";
        members
            .iter()
            .filter(is_in)
            .map(|event| event["state_key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(joined(&anna, &then).await, [anna.user.as_str()]);
    // As it was when he came.
    assert_eq!(joined(&bob, &then).await, [anna.user.as_str(), bob.user.as_str()]);
}
