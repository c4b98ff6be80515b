//! Relations and threads, as they are asked for.

use chappe_store::{
    EventNum, Tx,
    relations::{Child, Relation},
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, api::Direction};
use serde_json::json;

use super::{LOOKED_AT, Recurse, RelationsRequest};
use crate::{
    read::{token::Place, view::View},
    testing::{Town, actor},
};

fn everything(event: &EventId, direction: Direction, recurse: Recurse) -> RelationsRequest<'_> {
    RelationsRequest {
        event,
        rel_type: None,
        event_type: None,
        from: None,
        to: None,
        direction,
        limit: None,
        recurse,
    }
}

/// A root with so many relations, at the places from 0 on.
async fn root_with(town: &Town, types: impl Fn(i64) -> String, places: i64) -> (OwnedRoomId, OwnedEventId) {
    let alice = actor("alice");
    let room = town.room(&alice, json!({})).await;
    let root = town.say(&alice, &room, json!({ "body": "root" })).await;
    let nid = town.rooms.view(&room).await.unwrap().nid;
    let mut tx = Tx::new();
    for ordinal in 0..places {
        let child = Child { num: EventNum(1), event_type: "x".to_owned(), sender: alice.user.clone() };
        let relation = Relation { parent: (&*root).into(), rel_type: types(ordinal), ordinal, child };
        tx.put_relation(nid, &relation);
    }
    town.store.commit(tx).await.unwrap();
    (room, root)
}

/// The places of all pages, in the order of the timeline, and how many pages there were.
async fn all_places(view: &View<'_>, request: RelationsRequest<'_>) -> (Vec<i64>, usize) {
    let (mut from, mut places, mut pages) = (None::<String>, Vec::new(), 0);
    loop {
        let page = RelationsRequest { from: from.as_deref(), ..request };
        let related = view.related(&page).await.unwrap();
        assert!(related.found.len() <= LOOKED_AT);
        pages += 1;
        places.extend(related.found.into_iter().map(|(ordinal, _)| ordinal));
        let Some(beyond) = related.beyond else { break };
        from = Some(beyond.to_string());
    }
    if request.direction == Direction::Backward {
        places.reverse();
    }
    (places, pages)
}

#[tokio::test]
async fn looking_is_bounded_for_all_types_together_and_passes_nothing_over() {
    let town = Town::new();
    for (recurse, count) in [(Recurse::No, 7_000), (Recurse::Yes, 1_500)] {
        let (room, root) = root_with(&town, |ordinal| format!("t{}", ordinal % 50), count).await;
        let view = town.rooms.view(&room).await.unwrap();
        for direction in [Direction::Backward, Direction::Forward] {
            let (places, _) = all_places(&view, everything(&root, direction, recurse)).await;
            assert!(places.into_iter().eq(0..count), "{recurse:?} {direction:?}");
        }
    }
}

#[tokio::test]
async fn rare_types_take_nothing_from_a_long_thread() {
    let town = Town::new();
    let types = |ordinal: i64| if ordinal < 40 { format!("t{ordinal}") } else { "m.thread".to_owned() };
    let (room, root) = root_with(&town, types, 4_000).await;
    let view = town.rooms.view(&room).await.unwrap();
    let request = everything(&root, Direction::Backward, Recurse::No);
    let (places, pages) = all_places(&view, request).await;
    assert_eq!((places.len(), pages), (4_000, 1));
    let request = everything(&root, Direction::Backward, Recurse::Yes);
    let first = view.related(&request).await.unwrap();
    assert!(first.found.len() > 400, "{}", first.found.len());
    assert!(first.beyond.is_some(), "there is more");
}

#[tokio::test]
async fn what_relates_to_replies_on_the_other_side_of_the_token_is_found() {
    let (town, alice) = (Town::new(), actor("alice"));
    let room = town.room(&alice, json!({})).await;
    let root = town.say(&alice, &room, json!({ "body": "root" })).await;
    let relate = async |rel_type: &str, event: &EventId| {
        let relation = json!({ "rel_type": rel_type, "event_id": event });
        town.say(&alice, &room, json!({ "body": "x", "m.relates_to": relation })).await
    };
    let early = relate("m.thread", &root).await;
    let late = relate("m.thread", &root).await;
    let about_early = relate("m.reference", &early).await;
    let view = town.rooms.view(&room).await.unwrap();
    let mut nums = Vec::new();
    for event in [&late, &about_early] {
        nums.push(view.reader.event_num(view.nid, event).await.unwrap().unwrap());
    }
    let from = view.load_one(nums[0]).await.unwrap().meta.ordinal.unwrap();
    let from = Place(from).to_string();
    let request = everything(&root, Direction::Forward, Recurse::Yes);
    let related = view.related(&RelationsRequest { from: Some(&from), ..request }).await.unwrap();
    assert_eq!(related.found.into_iter().map(|(_, num)| num).collect::<Vec<_>>(), nums);
    assert_eq!(related.beyond, None);
}

/// A reply, so many others behind it, then something about the first: whether that is found.
async fn is_found_over(between: i64, from_there: bool) -> bool {
    let (town, alice) = (Town::new(), actor("alice"));
    let (room, root) = root_with(&town, |_| "m.thread".to_owned(), between).await;
    let early = town.say(&alice, &room, json!({ "body": "early" })).await;
    let nid = town.rooms.view(&room).await.unwrap().nid;
    let num = town.store.read().event_num(nid, &early).await.unwrap().unwrap();
    let child = |num| Child { num, event_type: "x".to_owned(), sender: alice.user.clone() };
    let relation = |parent: &EventId, ordinal, num| Relation {
        parent: parent.into(),
        rel_type: "m.thread".to_owned(),
        ordinal,
        child: child(num),
    };
    let last = EventNum(2);
    let mut tx = Tx::new();
    tx.put_relation(nid, &relation(&root, -1, num)).put_relation(nid, &relation(&early, between, last));
    town.store.commit(tx).await.unwrap();
    let view = town.rooms.view(&room).await.unwrap();
    let from = from_there.then(|| Place(between).to_string());
    let direction = if from_there { Direction::Forward } else { Direction::Backward };
    let request = everything(&root, direction, Recurse::Yes);
    let related = view.related(&RelationsRequest { from: from.as_deref(), ..request }).await.unwrap();
    related.found.contains(&(between, last))
}

#[tokio::test]
async fn what_relates_to_the_nearest_relations_is_found() {
    for (between, from_there, found) in
        [(240, true, true), (260, true, false), (490, false, true), (510, false, false)]
    {
        assert_eq!(is_found_over(between, from_there).await, found, "{between}");
    }
}
