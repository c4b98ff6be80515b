//! Upgrades where somebody or something is above whoever upgrades, an alias is another server's, or something comes between.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chappe_accounts::Scope;
use chappe_kv::{Counting, Db, Memory, RoundTrips};
use ruma::{OwnedRoomId, RoomId, events::StateEventType, owned_server_name, room_alias_id};
use serde_json::{Map, Value, json};
use tokio::time::advance;

use super::{
    net::{ALICE, BOB, CAROL, Net, actor, join, membership, request, room, state, user},
    policy_server::{key, names, policy_server},
};
use crate::{Change, Error, PeerError, Rooms};

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
async fn settings_follow_where_the_older_room_says_so() {
    let net = Net::default();
    let (a, b, old) = net.couple(json!({ "preset": "public_chat" })).await;
    net.deliver().await;
    for (rooms, who) in [(&a, ALICE), (&b, BOB)] {
        let set = |tags: &mut Map<String, Value>| drop(tags.insert("u.t".to_owned(), json!({})));
        rooms.0.accounts.update_tags(&user(who), &old, set).await.unwrap();
    }
    let has_tags = async |rooms: &Rooms, who: &str, room: &RoomId| {
        let (accounts, reader) = (&rooms.0.accounts, rooms.store().read());
        let tags = accounts.account_data(&reader, &user(who), Scope::Room(room), "m.tag").await;
        tags.unwrap().is_some()
    };
    let create = json!({ "predecessor": { "room_id": old, "event_id": "$last" } });
    let body = json!({ "preset": "public_chat", "creation_content": create });
    let claims = room(&a, ALICE, body.clone()).await;
    assert!(has_tags(&a, ALICE, &claims).await, "who made it says so");
    join(&b, BOB, &claims).await;
    assert!(!has_tags(&b, BOB, &claims).await);
    let named = room(&a, ALICE, body).await;
    let content = json!({ "body": "moved", "replacement_room": named });
    a.send(&actor(ALICE), &old, state("m.room.tombstone", "", &content), None).await.unwrap();
    net.deliver().await;
    join(&b, BOB, &named).await;
    assert!(has_tags(&b, BOB, &named).await);
}

#[tokio::test]
async fn an_upgraded_space_keeps_its_rooms() {
    let rooms = Net::default().server("a.example", 1);
    let old = room(&rooms, ALICE, json!({ "creation_content": { "type": "m.space" } })).await;
    let via = json!({ "via": ["a.example"], "order": "b" });
    let gone = json!({});
    for (child, content) in [("!one:a.example", &via), ("!two:a.example", &via), ("!two:a.example", &gone)] {
        rooms.send(&actor(ALICE), &old, state("m.space.child", child, content), None).await.unwrap();
    }
    let new = upgraded(&rooms, &old, "11").await;
    let view = rooms.view(&new).await.unwrap();
    let children = view.reader.current_of_type(view.nid, "m.space.child").await.unwrap();
    let [(key, num)] = children.as_slice() else { panic!("{children:?}") };
    assert_eq!(key.state_key, "!one:a.example");
    let child: Value = view.load_one(*num).await.unwrap().pdu.content_as().unwrap();
    assert_eq!(child, via);
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

#[tokio::test]
async fn an_upgrade_is_one_commit() {
    let trips = Arc::new(RoundTrips::default());
    let db = Db::new(Counting::new(Memory::default(), trips.clone()));
    let rooms = Net::default().server_on("a.example", 1, db);
    for version in ["11", "12"] {
        let near = format!("near{version}");
        let old = room(&rooms, ALICE, json!({ "preset": "public_chat", "room_alias_name": near })).await;
        trips.take();
        let new = upgraded(&rooms, &old, version).await;
        assert_eq!(trips.take().2, 1, "{version}");
        let named = json!({ "alias": format!("#{near}:a.example") });
        assert_eq!(content(&rooms, &new, "m.room.canonical_alias").await, named);
        assert_eq!(content(&rooms, &old, "m.room.canonical_alias").await, json!({}));
        assert_eq!(content(&rooms, &old, "m.room.tombstone").await["replacement_room"], json!(new));
        assert_eq!(content(&rooms, &old, "m.room.power_levels").await["events_default"], 50);
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_for_an_upgrade_gets_the_room_that_there_is() {
    let rooms = Net::default().server("a.example", 1);
    for version in ["11", "12"] {
        let old = room(&rooms, ALICE, json!({ "preset": "public_chat" })).await;
        let (one, other) = tokio::join!(upgraded(&rooms, &old, version), upgraded(&rooms, &old, version));
        assert_eq!(one, other, "{version}");
        assert_eq!(content(&rooms, &old, "m.room.tombstone").await["replacement_room"], json!(one));
        advance(Duration::from_mins(4)).await;
        assert_eq!(upgraded(&rooms, &old, version).await, one);
        advance(Duration::from_mins(2)).await;
        assert_ne!(upgraded(&rooms, &old, version).await, one, "it is meant so");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_goes_on_when_nobody_waits_for_it() {
    let rooms = Net::default().server("a.example", 1);
    let old = room(&rooms, ALICE, json!({ "preset": "public_chat", "room_alias_name": "near" })).await;
    let (world, alice) = (&rooms.0.world, actor(ALICE));
    let turn = rooms.0.turn(&old).await;
    let upgrade = rooms.upgrade(&alice, &old, "11".try_into().unwrap(), Vec::new());
    assert!(world.timeout(Duration::from_secs(1), upgrade).await.is_none());
    drop(turn);
    let moved = async {
        loop {
            let now = rooms.resolve_alias(room_alias_id!("#near:a.example")).await.unwrap().room_id;
            if now != old {
                break now;
            }
            world.sleep(Duration::from_millis(1)).await;
        }
    };
    let new = world.timeout(Duration::from_mins(1), moved).await.unwrap();
    assert_eq!(content(&rooms, &old, "m.room.tombstone").await["replacement_room"], json!(new));
}

#[tokio::test]
async fn an_upgrade_that_the_policy_server_refuses_leaves_nothing_behind() {
    let net = Net::default();
    let (a, p, alice) = (net.server("a.fr", 1), net.server("p.fr", 3), actor("@alice:a.fr"));
    let body = json!({ "preset": "public_chat", "room_version": "11", "room_alias_name": "near" });
    let old = room(&a, "@alice:a.fr", body).await;
    p.join(&actor("@judge:p.fr"), &old, vec![owned_server_name!("a.fr")], Map::new()).await.unwrap();
    net.deliver().await;
    a.send(&alice, &old, state("m.room.policy", "", &names("p.fr", &key())), None).await.unwrap();
    let refuses = |_: Value| -> Result<String, PeerError> {
        let (errcode, error) = ("M_FORBIDDEN".to_owned(), "Stay".to_owned());
        Err(PeerError::Refused { status: 400, errcode, error, room_version: None })
    };
    net.policy.lock().insert(owned_server_name!("p.fr"), Arc::new(refuses));
    let upgrade =
        async |version: &str| a.upgrade(&alice, &old, version.try_into().unwrap(), Vec::new()).await;
    for version in ["11", "12"] {
        let refused = upgrade(version).await;
        assert!(matches!(refused, Err(Error::PolicyServer(_))), "{refused:?}");
    }
    assert_eq!(a.store().read().user_rooms(&alice.user).await.unwrap().len(), 1);
    let asked = policy_server(&net, key());
    // At first about the levels and the alias as well.
    for (version, times) in [("11", 3), ("12", 1)] {
        let before = asked.load(Ordering::Relaxed);
        let new = upgrade(version).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), before + times, "{version}");
        assert_eq!(content(&a, &old, "m.room.tombstone").await["replacement_room"], json!(new));
    }
}
