//! Upgrades where somebody or something is above whoever upgrades, or an alias is another server's.

use ruma::{OwnedRoomId, RoomId, events::StateEventType, room_alias_id};
use serde_json::{Map, Value, json};

use super::net::{ALICE, BOB, CAROL, Net, actor, membership, request, room, state, user};
use crate::{Change, Error, Rooms};

const CHIEF: &str = "@chief:a.example";

async fn content(rooms: &Rooms, id: &RoomId, kind: &str) -> Value {
    let view = rooms.view(id).await.unwrap();
    let event = view.current(StateEventType::from(kind), "").await.unwrap().unwrap();
    serde_json::from_str(event.pdu.content().get()).unwrap()
}

async fn upgraded(rooms: &Rooms, old: &RoomId, version: &str) -> OwnedRoomId {
    rooms.upgrade(&actor(ALICE), old, version.try_into().unwrap(), Vec::new()).await.unwrap()
}

#[tokio::test]
async fn an_upgrade_keeps_levels_above_those_of_who_upgrades() {
    let rooms = Net::default().server("a.example", 1);
    for (from, to, own) in [
        ("9", "11", Some(100)),
        ("11", "11", Some(100)),
        ("11", "12", None),
        ("12", "11", Some(9_001)),
        ("12", "12", None),
    ] {
        let mut users = json!({ CHIEF: 9_001 });
        match from {
            "9" => users[ALICE] = json!("100"),
            "11" => users[ALICE] = json!(100),
            _ => {}
        }
        let needed = json!({ "m.room.tombstone": 100, "m.room.topic": 101 });
        let levels = json!({ "users": users, "ban": 9_001, "events": needed });
        let mut wanted = request(json!({ "preset": "public_chat", "room_version": from }));
        wanted.power_level_content_override = Some(serde_json::from_value(levels).unwrap());
        let old = rooms.create(&actor(ALICE), wanted).await.unwrap();
        rooms.join(&actor(CHIEF), &old, Vec::new(), Map::new()).await.unwrap();
        rooms.change(&actor(CHIEF), &old, &user(CAROL), Change::Ban, None).await.unwrap();

        let new = upgraded(&rooms, &old, to).await;
        let mut kept = content(&rooms, &new, "m.room.power_levels").await;
        let alice = kept["users"].as_object_mut().unwrap().remove(ALICE);
        assert_eq!(alice, own.map(|level| json!(level)), "{from} to {to}");
        assert_eq!((&kept["users"], &kept["events"]), (&json!({ CHIEF: 9_001 }), &needed));
        assert_eq!(kept["ban"], 9_001);
        assert_eq!(membership(&rooms, &new, CAROL).await, Some("ban"));
    }
}

#[tokio::test]
async fn an_upgrade_keeps_bans_of_those_whom_nobody_is_above() {
    const HIGHEST: i64 = (1 << 53) - 1;
    let rooms = Net::default().server("a.example", 1);
    for from in ["11", "12"] {
        let mut users = Map::new();
        if from == "11" {
            users.insert(ALICE.to_owned(), json!(HIGHEST));
        }
        let mut wanted = request(json!({ "preset": "public_chat", "room_version": from }));
        let levels = json!({ "users": users });
        wanted.power_level_content_override = Some(serde_json::from_value(levels).unwrap());
        let old = rooms.create(&actor(ALICE), wanted).await.unwrap();
        rooms.change(&actor(ALICE), &old, &user(CAROL), Change::Ban, None).await.unwrap();
        let mut levels = content(&rooms, &old, "m.room.power_levels").await;
        levels["users"][CAROL] = json!(HIGHEST);
        rooms.send(&actor(ALICE), &old, state("m.room.power_levels", "", &levels), None).await.unwrap();

        let new = upgraded(&rooms, &old, "11").await;
        let kept = content(&rooms, &new, "m.room.power_levels").await;
        assert_eq!(kept["users"], json!({ ALICE: HIGHEST, CAROL: HIGHEST }), "from {from}");
        assert_eq!(membership(&rooms, &new, CAROL).await, Some("ban"));
    }
}

#[tokio::test]
async fn who_made_a_room_of_version_12_is_as_high_as_anything_in_one_of_version_11() {
    let rooms = Net::default().server("a.example", 1);
    let old = room(&rooms, ALICE, json!({ "room_version": "12" })).await;
    let new = upgraded(&rooms, &old, "11").await;
    let levels = content(&rooms, &new, "m.room.power_levels").await;
    assert_eq!(levels["users"], json!({ ALICE: 150 }));
    assert_eq!(levels["events"]["m.room.tombstone"], 150);
}

#[tokio::test]
async fn an_upgrade_moves_aliases_of_this_server_and_leaves_those_of_others() {
    let net = Net::default();
    let (a, b, old) = net.couple(json!({ "preset": "public_chat", "room_alias_name": "near" })).await;
    net.deliver().await;
    let far = room_alias_id!("#far:b.example");
    b.create_alias(&actor(BOB), far, &old).await.unwrap();
    let named = json!({ "alias": "#near:a.example", "alt_aliases": [far] });
    a.send(&actor(ALICE), &old, state("m.room.canonical_alias", "", &named), None).await.unwrap();

    let new = upgraded(&a, &old, "11").await;
    assert_eq!(content(&a, &new, "m.room.canonical_alias").await, json!({ "alias": "#near:a.example" }));
    assert_eq!(content(&a, &old, "m.room.canonical_alias").await, json!({ "alt_aliases": [far] }));
}

#[tokio::test]
async fn no_levels_are_left_behind_while_it_is_not_known_who_is_of_the_network() {
    let net = Net::default();
    let a = net.server("a.example", 1);
    let [own, old] = [room(&a, ALICE, json!({})).await, room(&a, ALICE, json!({})).await];
    let mut levels = content(&a, &old, "m.room.power_levels").await;
    levels["users"][BOB] = json!(50);
    a.send(&actor(ALICE), &old, state("m.room.power_levels", "", &levels), None).await.unwrap();
    net.close("a.example");
    let refused = a.upgrade(&actor(ALICE), &old, "11".try_into().unwrap(), Vec::new()).await;
    assert!(matches!(refused, Err(Error::Unreachable)), "{refused:?}");
    upgraded(&a, &own, "11").await;
    net.open("a.example");
    let new = upgraded(&a, &old, "11").await;
    assert_eq!(content(&a, &new, "m.room.power_levels").await["users"][BOB], 50);
}
