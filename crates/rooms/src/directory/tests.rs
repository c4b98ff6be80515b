//! Aliases, lists and trees of rooms that were really made.

use std::time::Duration;

use ruma::{OwnedRoomId, RoomAliasId, directory::RoomTypeFilter, room_alias_id};
use serde_json::json;

use super::summary::UNSETTLED_MS;
use crate::{
    Actor, Change, Draft, Error, HierarchyRequest, PublicRoomsRequest, Standing, Visibility,
    testing::{Town, actor, object},
};

async fn resolves(town: &Town, alias: &RoomAliasId) -> Option<OwnedRoomId> {
    town.rooms.resolve_alias(alias).await.ok().map(|target| target.room_id)
}

#[tokio::test]
async fn aliases_are_made_resolved_and_deleted_by_those_who_may() {
    let town = Town::new();
    let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let alias = room_alias_id!("#plan:here.fr");
    town.rooms.create_alias(&bob, alias, &room).await.unwrap();
    assert!(matches!(town.rooms.create_alias(&anna, alias, &room).await, Err(Error::AliasInUse)));
    let stranger = town.rooms.create_alias(&carl, room_alias_id!("#x:here.fr"), &room).await;
    assert!(matches!(stranger, Err(Error::Forbidden(_))));
    let foreign = town.rooms.create_alias(&anna, room_alias_id!("#x:there.fr"), &room).await;
    assert!(matches!(foreign, Err(Error::InvalidParam(_))));
    let target = town.rooms.resolve_alias(alias).await.unwrap();
    assert_eq!((target.room_id, target.servers[0].as_str()), (room.clone(), "here.fr"));
    assert_eq!(town.rooms.aliases(&anna, &room).await.unwrap(), [alias]);
    assert!(town.rooms.aliases(&carl, &room).await.is_err());

    assert!(matches!(town.rooms.delete_alias(&carl, alias).await, Err(Error::Forbidden(_))));
    town.set(&anna, &room, "m.room.canonical_alias", "", json!({ "alias": alias })).await;
    town.rooms.delete_alias(&anna, alias).await.unwrap();
    assert_eq!(resolves(&town, alias).await, None);
    assert!(matches!(town.rooms.delete_alias(&anna, alias).await, Err(Error::NotFound(_))));
    let kind = ruma::events::StateEventType::RoomCanonicalAlias;
    let canonical = town.rooms.state_content(&anna, &room, kind, "").await.unwrap();
    assert_eq!(canonical.get(), "{}", "a deleted alias is canonical no more");

    town.rooms.create_alias(&bob, alias, &room).await.unwrap();
    let admin = Actor { standing: Standing::Administrator, ..carl };
    town.rooms.delete_alias(&admin, alias).await.unwrap();
}

#[tokio::test]
async fn a_canonical_alias_must_point_at_the_room() {
    let town = Town::new();
    let anna = actor("anna");
    let (one, two) = (town.room(&anna, json!({ "alias": "one" })).await, town.room(&anna, json!({})).await);
    let steal = async |content| {
        let draft = Draft::state(ruma::events::TimelineEventType::RoomCanonicalAlias, "", object(content));
        town.rooms.send(&anna, &two, draft, None).await
    };
    for content in [
        json!({ "alias": "#one:here.fr" }),
        json!({ "alt_aliases": ["#one:here.fr"] }),
        json!({ "alias": "#none:here.fr" }),
        json!({ "alias": "#far:there.fr" }),
    ] {
        assert!(matches!(steal(content).await, Err(Error::BadAlias(_))));
    }
    assert!(matches!(steal(json!({ "alias": "no alias" })).await, Err(Error::InvalidParam(_))));
    assert_eq!(resolves(&town, room_alias_id!("#one:here.fr")).await, Some(one));
}

#[tokio::test]
async fn public_rooms_are_listed_by_size_searched_and_paged() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let mut rooms = Vec::new();
    for number in 0..5 {
        let fields = json!({ "preset": "public_chat", "visibility": "public", "name": format!("Room {number}"),
            "topic": "Budget", "creation_content": if number == 4 { json!({ "type": "m.space" }) } else { json!({}) } });
        rooms.push(town.room(&anna, fields).await);
    }
    town.room(&anna, json!({ "preset": "public_chat", "name": "Room unlisted" })).await;
    town.join(&bob, &rooms[3]).await;
    let list = async |request: PublicRoomsRequest| town.rooms.public_rooms(&request).await.unwrap();
    let names = |page: &crate::PublicRooms| -> Vec<String> {
        page.chunk.iter().map(|room| room.name.clone().unwrap()).collect()
    };
    let first = list(PublicRoomsRequest { limit: Some(2), ..PublicRoomsRequest::default() }).await;
    assert_eq!((names(&first), first.total), (vec!["Room 3".to_owned(), "Room 0".to_owned()], Some(5)));
    assert_eq!((first.prev_batch.is_none(), u64::from(first.chunk[0].num_joined_members)), (true, 2));
    let next =
        PublicRoomsRequest { limit: Some(9), since: first.next_batch, ..PublicRoomsRequest::default() };
    let next = list(next).await;
    assert_eq!(names(&next), ["Room 1", "Room 2", "Room 4"]);
    assert!(next.next_batch.is_none());
    let back = PublicRoomsRequest { since: next.prev_batch, ..PublicRoomsRequest::default() };
    assert_eq!(names(&list(back).await), ["Room 3", "Room 0"]);

    let mut request = PublicRoomsRequest::default();
    request.filter.generic_search_term = Some("ROOM 2".to_owned());
    assert_eq!(names(&list(request.clone()).await), ["Room 2"]);
    request.filter.generic_search_term = Some("budget".to_owned());
    request.filter.room_types = vec![RoomTypeFilter::Space];
    assert_eq!(names(&list(request.clone()).await), ["Room 4"]);
    request.filter.room_types = vec![RoomTypeFilter::Default];
    assert_eq!(list(request).await.chunk.len(), 4);
    let bad = PublicRoomsRequest { since: Some("x".to_owned()), ..PublicRoomsRequest::default() };
    assert!(matches!(town.rooms.public_rooms(&bad).await, Err(Error::InvalidParam(_))));
}

#[tokio::test]
async fn listing_is_for_those_who_may_set_aliases() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
    town.join(&bob, &room).await;
    let set =
        async |who: &Actor, visibility| town.rooms.set_directory_visibility(who, &room, visibility).await;
    assert!(matches!(set(&bob, Visibility::Public).await, Err(Error::Forbidden(_))));
    set(&anna, Visibility::Public).await.unwrap();
    assert_eq!(town.rooms.directory_visibility(&room).await.unwrap(), Visibility::Public);
    set(&anna, Visibility::Private).await.unwrap();
    assert_eq!(town.rooms.directory_visibility(&room).await.unwrap(), Visibility::Private);
}

#[tokio::test]
async fn summaries_are_for_those_who_may_know() {
    let town = Town::new();
    let (anna, bob, carl) = (actor("anna"), actor("bob"), actor("carl"));
    let hidden = town.room(&anna, json!({ "preset": "private_chat", "name": "Secret" })).await;
    let open = town.room(&anna, json!({ "preset": "public_chat", "name": "Open" })).await;
    let knows = async |who: Option<&Actor>, room| {
        town.rooms.room_summary(who.map(|who| &*who.user), room, &[]).await.is_ok()
    };
    assert!(knows(None, &open).await && knows(Some(&anna), &hidden).await);
    assert!(!knows(None, &hidden).await && !knows(Some(&bob), &hidden).await);
    town.change(&anna, &hidden, &bob, Change::Invite).await;
    assert!(knows(Some(&bob), &hidden).await);
    let club = town.room(&anna, json!({ "preset": "public_chat" })).await;
    let allow =
        json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    town.set(&anna, &hidden, "m.room.join_rules", "", allow).await;
    assert!(!knows(Some(&carl), &hidden).await);
    town.join(&carl, &club).await;
    assert!(knows(Some(&carl), &hidden).await);
    let (summary, membership) = town.rooms.room_summary(Some(&anna.user), &hidden, &[]).await.unwrap();
    assert_eq!((summary.name.as_deref(), membership.unwrap().as_str()), (Some("Secret"), "join"));
}

#[tokio::test]
async fn a_name_that_is_redacted_is_told_no_more() {
    let town = Town::new();
    let anna = actor("anna");
    let room = town.room(&anna, json!({ "preset": "public_chat", "name": "An insult" })).await;
    let name = async || town.rooms.room_summary(None, &room, &[]).await.unwrap().0.name;
    assert_eq!(name().await.as_deref(), Some("An insult"));
    let view = town.rooms.view(&room).await.unwrap();
    let event = view.current("m.room.name".into(), "").await.unwrap().unwrap();
    drop(view);
    let redaction = Draft::redaction(event.pdu.event_id(), None);
    town.rooms.send(&anna, &room, redaction, None).await.unwrap();
    assert_eq!(name().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_room_tells_is_kept_again_some_time_after_a_redaction() {
    let town = Town::new();
    let anna = actor("anna");
    let room = town.room(&anna, json!({ "preset": "public_chat", "name": "An insult" })).await;
    let view = town.rooms.view(&room).await.unwrap();
    let event = view.current("m.room.name".into(), "").await.unwrap().unwrap();
    let at = (view.nid, view.head.state);
    view.summary().await.unwrap();
    assert!(town.rooms.0.known_summary(at).is_some());
    let redaction = Draft::redaction(event.pdu.event_id(), None);
    town.rooms.send(&anna, &room, redaction, None).await.unwrap();
    assert!(town.rooms.0.known_summary(at).is_none());
    let late = view.summary().await.unwrap();
    assert_eq!(late.room.name.as_deref(), Some("An insult"), "this view is older than the redaction");
    assert!(town.rooms.0.known_summary(at).is_none(), "and what it shows is not kept");
    drop(view);
    tokio::time::advance(Duration::from_millis(UNSETTLED_MS + 1)).await;
    town.rooms.room_summary(None, &room, &[]).await.unwrap();
    assert_eq!(town.rooms.0.known_summary(at).unwrap().room.name, None);
}

#[tokio::test]
async fn a_space_shows_its_tree_as_far_as_one_may_know() {
    let town = Town::new();
    let (anna, bob) = (actor("anna"), actor("bob"));
    let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    let root = town.room(&anna, space.clone()).await;
    let inner = town.room(&anna, space).await;
    let (leaf, hidden) = (
        town.room(&anna, json!({ "preset": "public_chat" })).await,
        town.room(&anna, json!({ "preset": "private_chat" })).await,
    );
    let child = async |parent: &OwnedRoomId, room: &OwnedRoomId, order: &str, suggested: bool| {
        let content = json!({ "via": ["here.fr"], "order": order, "suggested": suggested });
        town.set(&anna, parent, "m.space.child", room.as_str(), content).await;
    };
    child(&root, &inner, "a", true).await;
    child(&root, &hidden, "b", false).await;
    child(&inner, &leaf, "a", true).await;
    // A loop.
    child(&inner, &root, "b", true).await;
    let request =
        HierarchyRequest { room: &root, from: None, limit: None, max_depth: None, suggested_only: false };
    let tree = async |who: &Actor, request: HierarchyRequest<'_>| {
        let page = town.rooms.hierarchy(&who.user, &request).await.unwrap();
        (page.rooms.into_iter().map(|room| room.summary.room_id).collect::<Vec<_>>(), page.next_batch)
    };
    assert_eq!(tree(&anna, request.clone()).await.0, [&*root, &*inner, &*leaf, &*hidden]);
    assert_eq!(tree(&bob, request.clone()).await.0, [&*root, &*inner, &*leaf]);
    let suggested = HierarchyRequest { suggested_only: true, ..request.clone() };
    assert_eq!(tree(&anna, suggested).await.0, [&*root, &*inner, &*leaf]);
    let shallow = HierarchyRequest { max_depth: Some(1), ..request.clone() };
    assert_eq!(tree(&anna, shallow).await.0, [&*root, &*inner, &*hidden]);
    let (first, token) = tree(&anna, HierarchyRequest { limit: Some(3), ..request.clone() }).await;
    assert_eq!(first, [&*root, &*inner, &*leaf]);
    let rest = HierarchyRequest { from: token.as_deref(), limit: Some(3), ..request.clone() };
    assert_eq!(tree(&anna, rest).await, (vec![hidden.clone()], None));
    let refused = town.rooms.hierarchy(&bob.user, &HierarchyRequest { room: &hidden, ..request }).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));

    let there = "there.fr".try_into().unwrap();
    let answer = town.rooms.hierarchy_for(there, &root, false).await.unwrap();
    assert_eq!(answer.children.len(), 1);
    assert_eq!(answer.inaccessible_children, [&*hidden]);
    assert!(matches!(town.rooms.hierarchy_for(there, &hidden, false).await, Err(Error::NotFound(_))));
}
