//! What is read is without those whom the reader ignores, but for state.

use chappe_accounts::Scope;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    api::{Direction, client::filter::RoomEventFilter},
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Value, json, value::to_raw_value};

use super::{back, bodies, page, related, value};
use crate::{
    Actor, Draft, Error, PageRequest, RelationsRequest, Standing,
    testing::{Town, actor, object},
};

async fn ignore(town: &Town, who: &Actor, whom: &[&Actor]) {
    let whom: Value = whom.iter().map(|actor| (actor.user.to_string(), json!({}))).collect();
    let list = to_raw_value(&json!({ "ignored_users": whom })).unwrap();
    town.accounts.set_account_data(&who.user, Scope::Global, "m.ignored_user_list", &list).await.unwrap();
}

async fn relate(town: &Town, who: &Actor, room: &OwnedRoomId, kind: &str, to: &OwnedEventId) -> OwnedEventId {
    let relation = json!({ "rel_type": kind, "event_id": to });
    town.say(who, room, json!({ "body": who.user.localpart(), "m.relates_to": relation })).await
}

/// A room of Anna's in which Bob says much, and Anna every fourth thing.
async fn talk(town: &Town, anna: &Actor, bob: &Actor) -> (OwnedRoomId, Vec<OwnedEventId>) {
    let room = town.room(anna, json!({ "preset": "public_chat" })).await;
    town.join(bob, &room).await;
    let mut said = Vec::new();
    for number in 0..16 {
        let who = if number % 4 == 0 { anna } else { bob };
        said.push(town.say(who, &room, json!({ "body": number.to_string() })).await);
    }
    (room, said)
}

#[tokio::test]
async fn pages_of_history_go_on_over_those_who_are_ignored() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let (room, _) = talk(&town, &anna, &bob).await;
    ignore(&town, &anna, &[&bob]).await;
    let filter = RoomEventFilter::default();
    let (mut said, mut joins, mut from) = (Vec::new(), 0, None::<String>);
    for _ in 0..30 {
        let found = page(&town, &anna, &room, back(from.as_deref(), 2, &filter)).await;
        said.extend(bodies(&found.chunk));
        joins += found.chunk.iter().filter(|event| value(event)["sender"] == bob.user.as_str()).count();
        from = found.end;
        if from.is_none() {
            break;
        }
    }
    assert!(from.is_none(), "paging ends");
    assert_eq!((said, joins), (["12", "8", "4", "0"].map(str::to_owned).to_vec(), 1), "state is told");
    let first = PageRequest { direction: Direction::Forward, ..back(None, 100, &filter) };
    assert_eq!(bodies(&page(&town, &anna, &room, first).await.chunk), ["0", "4", "8", "12"]);
    assert_eq!(bodies(&page(&town, &bob, &room, back(None, 100, &filter)).await.chunk).len(), 16);
    let overseer = Actor { standing: Standing::Overseer, ..anna.clone() };
    assert_eq!(bodies(&page(&town, &overseer, &room, back(None, 100, &filter)).await.chunk).len(), 16);
    ignore(&town, &anna, &[]).await;
    assert_eq!(bodies(&page(&town, &anna, &room, back(None, 100, &filter)).await.chunk).len(), 16);
}

#[tokio::test]
async fn an_event_and_what_is_around_it_is_of_nobody_who_is_ignored() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let (room, said) = talk(&town, &anna, &bob).await;
    ignore(&town, &anna, &[&bob]).await;
    let filter = RoomEventFilter::default();
    let context = town.rooms.context(&anna, &room, &said[8], 4, &filter).await.unwrap();
    assert_eq!(bodies(&context.before), ["4", "0"]);
    assert_eq!(bodies(&context.after), ["12"]);
    let more = page(&town, &anna, &room, back(Some(&context.start), 1, &filter)).await;
    assert_eq!(value(&more.chunk[0])["sender"], bob.user.as_str(), "his join comes next");
    let hidden = town.rooms.event(&anna, &room, &said[9]).await;
    assert!(matches!(hidden, Err(Error::NotFound("event"))));
    let hidden = town.rooms.context(&anna, &room, &said[9], 4, &filter).await;
    assert!(matches!(hidden, Err(Error::NotFound("event"))));
    town.rooms.event(&bob, &room, &said[9]).await.unwrap();
    let (kind, key) = (StateEventType::RoomMember, bob.user.as_str());
    let join = value(&town.rooms.state_event(&anna, &room, kind, key).await.unwrap());
    let join: OwnedEventId = join["event_id"].as_str().unwrap().try_into().unwrap();
    town.rooms.event(&anna, &room, &join).await.unwrap();
    town.rooms.context(&anna, &room, &join, 4, &filter).await.unwrap();
}

#[tokio::test]
async fn relations_and_bundles_are_of_nobody_who_is_ignored() {
    let town = Town::new();
    let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    town.join(&carl, &room).await;
    let root = town.say(&anna, &room, json!({ "body": "root" })).await;
    for who in [&bob, &anna, &bob, &carl, &bob, &bob, &bob, &bob, &bob] {
        relate(&town, who, &room, "m.thread", &root).await;
    }
    relate(&town, &bob, &room, "m.reference", &root).await;
    let bundle = async |who: &Actor| {
        value(&town.rooms.event(who, &room, &root).await.unwrap())["unsigned"]["m.relations"].clone()
    };
    let thread = async |who: &Actor| {
        let thread = bundle(who).await["m.thread"].clone();
        let latest = thread["latest_event"]["content"]["body"].as_str().map(str::to_owned);
        (thread["count"].as_u64().unwrap(), latest.unwrap())
    };
    assert_eq!(bundle(&anna).await["m.reference"]["chunk"].as_array().unwrap().len(), 1);
    assert_eq!(thread(&anna).await, (9, "bob".to_owned()));
    ignore(&town, &anna, &[&bob]).await;
    assert!(bundle(&anna).await.get("m.reference").is_none());
    assert_eq!(thread(&anna).await, (2, "carl".to_owned()), "behind many of bob's");
    assert_eq!(thread(&carl).await, (9, "bob".to_owned()));
    let one = RelationsRequest { limit: Some(1), ..related(&root, None) };
    let first = town.rooms.relations(&anna, &room, &one).await.unwrap();
    let next = RelationsRequest { from: first.next_batch.as_deref(), ..one };
    let second = town.rooms.relations(&anna, &room, &next).await.unwrap();
    assert_eq!(bodies(&first.chunk), ["carl"]);
    assert_eq!(bodies(&second.chunk), ["anna"]);
    assert!(first.next_batch.is_some() && second.next_batch.is_none());
    ignore(&town, &anna, &[&bob, &carl]).await;
    assert_eq!(thread(&anna).await, (1, "anna".to_owned()));
}

#[tokio::test]
async fn a_thread_of_nobody_else_has_no_summary_and_the_root_of_somebody_ignored_says_nothing() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let own = town.say(&anna, &room, json!({ "body": "own" })).await;
    relate(&town, &bob, &room, "m.thread", &own).await;
    let his = town.say(&bob, &room, json!({ "body": "his" })).await;
    relate(&town, &anna, &room, "m.thread", &his).await;
    ignore(&town, &anna, &[&bob]).await;
    let include = "all".into();
    let threads = async |who: &Actor| {
        let listed = town.rooms.threads(who, &room, None, &include, None).await.unwrap();
        listed.chunk.iter().map(|root| value(root)).collect::<Vec<_>>()
    };
    let listed = threads(&anna).await;
    assert_eq!(listed.iter().map(|root| &root["event_id"]).collect::<Vec<_>>(), [his.as_str(), own.as_str()]);
    assert_eq!((&listed[0]["content"], &listed[0]["sender"]), (&json!({}), &json!(bob.user)));
    assert_eq!(listed[0]["unsigned"]["m.relations"]["m.thread"]["count"], 1);
    assert_eq!(listed[1]["content"]["body"], "own");
    assert!(listed[1]["unsigned"]["m.relations"].get("m.thread").is_none(), "{}", listed[1]);
    assert_eq!(threads(&bob).await[0]["content"]["body"], "his");
    let replies = town.rooms.relations(&anna, &room, &related(&his, Some("m.thread"))).await.unwrap();
    assert_eq!(bodies(&replies.chunk), ["anna"]);
}

#[tokio::test]
async fn the_event_nearest_to_a_time_is_of_nobody_who_is_ignored() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let at = |ms: u64| MilliSecondsSinceUnixEpoch((1_900_000_000_000 + ms).try_into().unwrap());
    let mut said = Vec::new();
    for (who, ms) in [(&anna, 1_000), (&bob, 2_000), (&anna, 3_000)] {
        let mut draft = Draft::message(TimelineEventType::RoomMessage, object(json!({ "body": "x" })));
        draft.timestamp = Some(at(ms));
        said.push(town.rooms.send(who, &room, draft, None).await.unwrap());
    }
    let find =
        async || town.rooms.timestamp_to_event(&anna, &room, at(1_500), Direction::Forward).await.unwrap().0;
    assert_eq!(find().await, said[1]);
    ignore(&town, &anna, &[&bob]).await;
    assert_eq!(find().await, said[2]);
}
