//! Rooms of versions 1 to 5: ids of a server's own choice, references with hashes, redactions, state resolution, numbers.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use chappe_rules::{
    Pdu,
    build::{SigningKey, countersign},
};
use ring::digest::{SHA256, digest};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedRoomId, RoomId, RoomVersionId,
    room_version_rules::RoomVersionRules, server_name,
};
use serde_json::json;

use super::{
    malformed::{parsed, signed_in},
    net::{ALICE, BOB, Net, actor, bodies, membership, room, say, state, user, whole_state},
};
use crate::{Change, Draft, Error, Invitation, Rooms};

const OLD: [&str; 5] = ["1", "2", "3", "4", "5"];

/// A room of `a` in which `b`, whose key has the seed 2, has a user.
async fn shared(net: &Net, version: &str) -> (Rooms, Rooms, OwnedRoomId) {
    let (a, b, id) = net.couple(json!({ "preset": "public_chat", "room_version": version })).await;
    net.deliver().await;
    (a, b, id)
}

fn text(text: &str) -> CanonicalJsonValue {
    CanonicalJsonValue::String(text.to_owned())
}

fn saying(event: &CanonicalJsonObject, body: &str) -> CanonicalJsonObject {
    let content = [("msgtype".to_owned(), text("m.text")), ("body".to_owned(), text(body))];
    let mut event = event.clone();
    event.insert("content".to_owned(), CanonicalJsonValue::Object(content.into_iter().collect()));
    event
}

#[tokio::test]
async fn events_have_the_ids_and_references_of_their_version() {
    for version in OLD {
        let net = Net::default();
        let (a, b, id) = shared(&net, version).await;
        let first = say(&b, BOB, &id, "first").await;
        let second = say(&b, BOB, &id, "second").await;
        net.deliver().await;
        assert_eq!(bodies(&a, &id).await, ["first", "second"], "{version}");
        let event = parsed(&a, &id, &second).await;
        assert_eq!(event, parsed(&b, &id, &second).await);
        let prev = event["prev_events"].as_array().unwrap();
        if ["1", "2"].contains(&version) {
            assert_eq!(second.server_name().unwrap(), "b.example");
            assert_eq!(event["event_id"].as_str(), Some(second.as_str()));
            let pair = prev[0].as_array().unwrap();
            assert_eq!(pair[0].as_str(), Some(first.as_str()));
            let hash = pair[1].as_object().unwrap()["sha256"].as_str().unwrap();
            let rules = chappe_rules::version::rules(&version.try_into().unwrap()).unwrap();
            let of_first = ruma::signatures::reference_hash(&parsed(&a, &id, &first).await, rules).unwrap();
            assert_eq!(hash, of_first);
        } else {
            assert!(second.server_name().is_none() && !event.contains_key("event_id"));
            assert_eq!(prev[0].as_str(), Some(first.as_str()));
        }
        assert_eq!(whole_state(&a, &id).await, whole_state(&b, &id).await);
    }
}

#[tokio::test]
async fn an_id_stands_for_one_event_and_is_signed_by_its_server() {
    let net = Net::default();
    let (a, b, id) = shared(&net, "1").await;
    let rules = &RoomVersionRules::V1;
    let honest = say(&b, BOB, &id, "honest").await;
    net.deliver().await;
    let base = parsed(&b, &id, &honest).await;
    let take = async |event: CanonicalJsonObject| {
        a.receive(server_name!("b.example"), vec![signed_in(rules, event)]).await.pop().unwrap().result
    };
    let with_id = |body: &str, event_id: &str| {
        let mut event = saying(&base, body);
        event.insert("event_id".to_owned(), text(event_id));
        event
    };
    let twice = take(saying(&base, "another under the same id")).await;
    assert!(matches!(twice, Err(Error::HostilePeer(_))), "{twice:?}");
    assert!(take(base.clone()).await.is_ok(), "the same event again changes nothing");
    let stolen = take(with_id("in another server's name", "$x:a.example")).await;
    assert!(matches!(stolen, Err(Error::InvalidParam(_))), "{stolen:?}");
    assert!(take(with_id("of no server", "$x")).await.is_err());
    assert!(take(with_id("long", &format!("${}:b.example", "x".repeat(255)))).await.is_err());
    assert!(take(with_id("odd", "$ünlesbar/+?:b.example")).await.is_ok());
    let elsewhere = room(&b, BOB, json!({ "preset": "public_chat", "room_version": "1" })).await;
    a.join(&actor(ALICE), &elsewhere, vec!["b.example".try_into().unwrap()], serde_json::Map::new())
        .await
        .unwrap();
    let there = say(&b, BOB, &elsewhere, "there").await;
    net.deliver().await;
    let of_two_rooms = take(with_id("here", there.as_str())).await;
    assert!(matches!(of_two_rooms, Err(Error::HostilePeer(_))), "{of_two_rooms:?}");
    assert_eq!(bodies(&a, &id).await, ["honest", "odd"]);
    assert_eq!(parsed(&a, &id, &honest).await, base);
}

#[tokio::test]
async fn forks_of_every_old_version_converge() {
    for version in OLD {
        let net = Net::default();
        let (a, b, id) = shared(&net, version).await;
        let levels = json!({ "users": { ALICE: 100, BOB: 100 }, "state_default": 50 });
        a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
        net.deliver().await;
        for (rooms, who, name) in [(&a, ALICE, "a"), (&b, BOB, "b")] {
            say(rooms, who, &id, name).await;
            let topic = json!({ "topic": name });
            rooms.send(&actor(who), &id, state("m.room.topic", "", &topic), None).await.unwrap();
        }
        b.change(&actor(BOB), &id, &user("@carol:a.example"), Change::Ban, None).await.unwrap();
        net.deliver().await;
        say(&a, ALICE, &id, "joins the ends").await;
        net.deliver().await;
        let state = whole_state(&a, &id).await;
        assert_eq!(state, whole_state(&b, &id).await, "{version}");
        assert!(state.contains_key(&("m.room.member".to_owned(), "@carol:a.example".to_owned())));
    }
}

#[tokio::test]
async fn redactions_take_effect_in_old_rooms() {
    for version in OLD {
        let net = Net::default();
        let (a, b, id) = shared(&net, version).await;
        let said = say(&b, BOB, &id, "regretted").await;
        net.deliver().await;
        b.send(&actor(BOB), &id, Draft::redaction(&said, None), None).await.unwrap();
        net.deliver().await;
        let view = a.view(&id).await.unwrap();
        let num = view.reader.event_num(view.nid, &said).await.unwrap().unwrap();
        let event = view.load_one(num).await.unwrap();
        assert_eq!(event.pdu.content().get(), "{}", "{version}");
    }
}

#[tokio::test]
async fn an_invite_to_an_old_room_is_taken_and_followed() {
    for version in OLD {
        let net = Net::default();
        let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
        let id = room(&a, ALICE, json!({ "invite": [BOB], "room_version": version })).await;
        b.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
        net.deliver().await;
        assert_eq!(membership(&a, &id, BOB).await, Some("join"), "{version}");
        b.leave(&actor(BOB), &id, None).await.unwrap();
        net.deliver().await;
        assert_eq!(membership(&a, &id, BOB).await, Some("leave"), "{version}");
    }
}

#[tokio::test]
async fn an_invite_under_another_servers_id_is_refused() {
    let net = Net::default();
    let (a, b, id) = shared(&net, "1").await;
    let levels = json!({ "users": { ALICE: 100, BOB: 50 } });
    a.send(&actor(ALICE), &id, state("m.room.power_levels", "", &levels), None).await.unwrap();
    net.deliver().await;
    b.change(&actor(BOB), &id, &user("@new:a.example"), Change::Invite, None).await.unwrap();
    let key = ("m.room.member".to_owned(), "@new:a.example".to_owned());
    let event_id = whole_state(&b, &id).await[&key].clone();
    let honest = parsed(&b, &id, &event_id).await;
    let offer = async |event_id: &str| {
        let mut event = honest.clone();
        event.insert("event_id".to_owned(), text(event_id));
        let event = signed_in(&RoomVersionRules::V1, event);
        let invitation = Invitation { room_version: RoomVersionId::V1, event, room_state: Vec::new() };
        let claimed = EventId::parse(event_id).unwrap();
        a.accept_invite(server_name!("b.example"), &id, &claimed, invitation).await
    };
    let refused = offer("$x:a.example").await;
    assert!(matches!(refused, Err(Error::InvalidParam(_))), "{refused:?}");
    offer("$x:b.example").await.unwrap();
}

/// What `b` says of a place, in numbers that canonical JSON does not have, as a server in Python would.
async fn located(b: &Rooms, id: &RoomId, rules: &RoomVersionRules) -> Pdu {
    let honest = say(b, BOB, id, "honest").await;
    let mut event = saying(&parsed(b, id, &honest).await, "here");
    for proof in ["hashes", "signatures"] {
        event.remove(proof);
    }
    if let Some(id) = event.get_mut("event_id") {
        *id = text("$here:b.example");
    }
    let plain = serde_json::to_string(&event).unwrap();
    let numbers = r#"{"at":[48.85,1e-07,1e+16,-2.0,18446744073709551617],"body":"here""#;
    let event = plain.replace(r#"{"body":"here""#, numbers);
    let hash = STANDARD_NO_PAD.encode(digest(&SHA256, event.as_bytes()));
    let event = format!(r#"{{"hashes":{{"sha256":"{hash}"}},"signatures":{{}},{}"#, &event[1..]);
    let pdu = Pdu::parse(rules, event.as_bytes()).unwrap();
    assert!(pdu.json().contains(numbers));
    let key = SigningKey::from_seed([2; 32], "k").unwrap();
    countersign(rules, &pdu, server_name!("b.example"), &key).unwrap()
}

#[tokio::test]
async fn numbers_of_old_rooms_are_kept_and_told_as_they_were_sent() {
    for version in OLD {
        let net = Net::default();
        let (a, b, id) = shared(&net, version).await;
        let rules = chappe_rules::version::rules(&version.try_into().unwrap()).unwrap();
        let pdu = located(&b, &id, rules).await;
        net.deliver().await;
        let taken = a.receive(server_name!("b.example"), vec![pdu.to_raw()]).await.pop().unwrap();
        assert!(taken.result.is_ok(), "{version}: {:?}", taken.result);
        assert_eq!(bodies(&a, &id).await, ["honest", "here"], "{version}");
        let told = a.event_for(server_name!("b.example"), pdu.event_id()).await.unwrap();
        assert_eq!(told.get(), pdu.json(), "{version}");
        a.send(&actor(ALICE), &id, Draft::redaction(pdu.event_id(), None), None).await.unwrap();
        let view = a.view(&id).await.unwrap();
        let num = view.reader.event_num(view.nid, pdu.event_id()).await.unwrap().unwrap();
        assert_eq!(view.load_one(num).await.unwrap().pdu.content().get(), "{}", "{version}");
    }
}
