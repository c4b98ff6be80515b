//! What erased users said, for those who were there and for those who were not.

use std::slice::from_ref;

use chappe_accounts::{Erase, NewUser};
use chappe_rules::Pdu;
use ruma::{
    OwnedEventId, RoomVersionId, UserId,
    api::{Direction, client::filter::RoomEventFilter},
    server_name,
};
use serde_json::{Value, json};

use super::net::{self, ALICE, BOB, CAROL, Net, join, room, say, user};
use crate::{
    Actor, MembersRequest, PageRequest, Recurse, RelationsRequest, Rooms,
    testing::{Town, actor},
};

async fn account(rooms: &Rooms, name: &str) {
    let new = NewUser { localpart: Some(name.to_owned()), ..NewUser::default() };
    rooms.0.accounts.create_user(new).await.unwrap();
}

async fn erase(rooms: &Rooms, user: &UserId) {
    rooms.0.accounts.deactivate(user, Erase::Yes).await.unwrap();
}

#[tokio::test]
async fn what_erased_users_said_is_for_those_who_were_there() {
    let town = Town::new();
    let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
    account(&town.rooms, "anna").await;
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let said = town.say(&anna, &room, json!({ "msgtype": "m.text", "body": "secret" })).await;
    let edit = json!({
        "msgtype": "m.text",
        "body": "* hidden",
        "m.new_content": { "msgtype": "m.text", "body": "hidden" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": said },
    });
    town.say(&anna, &room, edit).await;
    let thread = json!({ "rel_type": "m.thread", "event_id": said });
    let answer = json!({ "msgtype": "m.text", "body": "kept", "m.relates_to": thread });
    let answer = town.say(&bob, &room, answer).await;
    for topic in ["before", "holds"] {
        town.set(&anna, &room, "m.room.topic", "", json!({ "topic": topic })).await;
    }
    town.join(&carl, &room).await;
    let later = town.say(&anna, &room, json!({ "msgtype": "m.text", "body": "later" })).await;

    let read = async |who: &Actor, event: &OwnedEventId| {
        town.rooms.event(who, &room, event).await.unwrap().get().to_owned()
    };
    let page = async |who: &Actor| {
        let filter = RoomEventFilter::default();
        let request = PageRequest {
            from: None,
            to: None,
            direction: Direction::Backward,
            limit: 100,
            filter: &filter,
            relations: None,
        };
        let page = town.rooms.messages(who, &room, request).await.unwrap();
        page.chunk.iter().map(|event| event.get().to_owned()).collect::<String>()
    };
    let related = async |who: &Actor| {
        let request = RelationsRequest {
            event: &said,
            rel_type: None,
            event_type: None,
            from: None,
            to: None,
            direction: Direction::Backward,
            limit: None,
            recurse: Recurse::No,
        };
        town.rooms.relations(who, &room, &request).await.unwrap().chunk.len()
    };
    let [before, holds] = ["before", "holds"].map(|text| format!("\"topic\":\"{text}\""));
    let is_whole = async |who: &Actor| {
        let (event, page) = (read(who, &said).await, page(who).await);
        let is_said = ["secret", "hidden"].iter().all(|text| event.contains(text) && page.contains(text));
        is_said && page.contains(&before) && related(who).await == 2
    };
    assert!(is_whole(&bob).await && is_whole(&carl).await);
    town.accounts.deactivate(&anna.user, Erase::No).await.unwrap();
    assert!(is_whole(&carl).await, "closed and no more");

    erase(&town.rooms, &anna.user).await;
    assert!(is_whole(&bob).await, "who was there goes on seeing it");
    let (event, shown) = (read(&carl, &said).await, page(&carl).await);
    for text in ["secret", "hidden", before.as_str()] {
        assert!(!event.contains(text) && !shown.contains(text), "{text}: {event} {shown}");
    }
    let redacted: Value = serde_json::from_str(&event).unwrap();
    assert_eq!((&redacted["content"], &redacted["sender"]), (&json!({}), &json!(anna.user)));
    assert!(shown.contains(&holds), "what holds is state: {shown}");
    assert!(shown.contains("kept") && read(&carl, &answer).await.contains("kept"), "others' words stay");
    assert!(read(&carl, &later).await.contains("later"), "carl was there");
    assert_eq!(related(&carl).await, 1);

    town.accounts.reactivate(&anna.user).await.unwrap();
    assert!(is_whole(&carl).await);
}

#[tokio::test]
async fn what_erased_users_had_set_is_told_as_state_to_those_who_were_there() {
    let town = Town::new();
    let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
    account(&town.rooms, "anna").await;
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let set = async |name: &str| {
        let own = json!({ "membership": "join", "displayname": name });
        town.set(&anna, &room, "m.room.member", anna.user.as_str(), own).await;
        town.set(&anna, &room, "m.room.topic", "", json!({ "topic": name })).await;
    };
    set("hidden").await;
    let early = town.say(&anna, &room, json!({ "msgtype": "m.text", "body": "early" })).await;
    set("seen").await;
    town.join(&carl, &room).await;
    let later = town.say(&anna, &room, json!({ "msgtype": "m.text", "body": "later" })).await;
    set("holds").await;

    let (all, lazily) = (json!({}), json!({ "lazy_load_members": true }));
    let [all, lazily]: [RoomEventFilter; 2] =
        [all, lazily].map(|filter| serde_json::from_value(filter).unwrap());
    // Whether the state is told whole with the context of an event, a page that begins with it, and as the members then.
    let is_told = async |who: &Actor, event: &OwnedEventId, name: &str| {
        let around = town.rooms.context(who, &room, event, 0, &all).await.unwrap();
        let request = PageRequest {
            from: Some(&around.start),
            to: None,
            direction: Direction::Forward,
            limit: 1,
            filter: &lazily,
            relations: None,
        };
        let page = town.rooms.messages(who, &room, request).await.unwrap();
        let at = MembersRequest { at: Some(&around.end), ..MembersRequest::default() };
        let members = town.rooms.members(who, &room, &at).await.unwrap();
        [around.state, page.state, members].map(|state| state.iter().any(|one| one.get().contains(name)))
    };
    assert_eq!(is_told(&carl, &early, "hidden").await, [true; 3]);
    erase(&town.rooms, &anna.user).await;
    assert_eq!(is_told(&carl, &early, "hidden").await, [false; 3]);
    assert_eq!(is_told(&bob, &early, "hidden").await, [true; 3]);
    for who in [&bob, &carl] {
        assert_eq!(is_told(who, &later, "seen").await, [true; 3], "both were there");
    }
}

#[tokio::test]
async fn servers_that_were_not_there_get_what_erased_users_said_redacted() {
    let net = Net::default();
    let (a, b, c) = (net.server("a.example", 1), net.server("b.example", 2), net.server("c.example", 3));
    account(&a, "alice").await;
    let id = room(&a, ALICE, json!({ "preset": "public_chat", "room_version": "11" })).await;
    join(&b, BOB, &id).await;
    net.deliver().await;
    let set = async |topic: &str| {
        let named = json!({ "membership": "join", "displayname": topic });
        for draft in [
            net::state("m.room.topic", "", &json!({ "topic": topic })),
            net::state("m.room.member", ALICE, &named),
        ] {
            a.send(&net::actor(ALICE), &id, draft, None).await.unwrap();
        }
    };
    let levels = async |room: u8| {
        let content = json!({ "users": { ALICE: 100 }, "notifications": { "room": room } });
        let draft = net::state("m.room.power_levels", "", &content);
        a.send(&net::actor(ALICE), &id, draft, None).await.unwrap();
    };
    levels(50).await;
    set("hidden").await;
    let said = say(&a, ALICE, &id, "secret").await;
    set("holds").await;
    levels(60).await;
    net.deliver().await;
    join(&c, CAROL, &id).await;
    net.deliver().await;
    let later = say(&a, ALICE, &id, "later").await;
    let (there, not_there) = (server_name!("b.example"), server_name!("c.example"));
    let told = async |server| {
        let event = a.event_for(server, &said).await.unwrap().get().to_owned();
        let before = a.backfill_for(server, &id, from_ref(&later), 20).await.unwrap();
        let before: String = before.iter().map(|event| event.get().to_owned()).collect();
        assert!(before.contains("later"), "{before}");
        assert_eq!(event.contains("secret"), before.contains("secret"), "{before}");
        let state = a.state_for(server, &id, &said).await.unwrap().state;
        let is_told = |text: &str| state.iter().any(|event| event.get().contains(text));
        assert_eq!(event.contains("secret"), is_told("hidden"), "{state:?}");
        assert!(is_told("m.room.topic"), "{state:?}");
        event
    };
    assert!(told(not_there).await.contains("secret"));
    erase(&a, &user(ALICE)).await;
    assert!(told(there).await.contains("secret"));
    let event = told(not_there).await;
    assert!(!event.contains("secret"));
    let rules = chappe_rules::version::rules(&RoomVersionId::V11).unwrap();
    let copy = Pdu::parse(rules, event.as_bytes()).unwrap();
    assert_eq!(copy.event_id(), &*said, "the same event");
    let seen = a.visible_to_server(not_there, &id, &said).await.unwrap();
    assert!(seen.is_redacted() && !seen.pdu.json().contains("secret"));
    assert!(!a.visible_to_server(there, &id, &said).await.unwrap().is_redacted());
}
