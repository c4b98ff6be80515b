//! Sizes and shapes at their edges.

use std::collections::BTreeSet;

use ruma::{MilliSecondsSinceUnixEpoch, UInt, room_version_rules::RoomVersionRules, server_name};
use serde_json::{Value, json};

use super::sample;
use crate::{
    Pdu,
    check::{KeyRing, ServerKey, check},
    pdu::id_of,
};

fn parse_with(change: impl Fn(&mut Value)) -> Result<Pdu, crate::Error> {
    let (rules, _, pdu) = sample(&RoomVersionRules::V11);
    let mut value: Value = serde_json::from_str(pdu.json()).unwrap();
    change(&mut value);
    Pdu::parse(rules, value.to_string().as_bytes())
}

#[test]
fn identifiers_are_counted_in_bytes() {
    let eight = "é".repeat(127);
    assert!(parse_with(|event| event["type"] = format!("{eight}a").into()).is_ok());
    assert!(parse_with(|event| event["type"] = format!("{eight}aa").into()).is_err());
    assert!(parse_with(|event| event["state_key"] = "k".repeat(255).into()).is_ok());
    assert!(parse_with(|event| event["state_key"] = "k".repeat(256).into()).is_err());
    assert!(parse_with(|event| event["sender"] = format!("@{}:a.example", "u".repeat(250)).into()).is_err());
}

#[test]
fn whole_event_is_counted_in_canonical_bytes() {
    let base = parse_with(|event| event["content"]["pad"] = "".into()).unwrap().json().len();
    let padded = |bytes: usize| parse_with(|event| event["content"]["pad"] = "p".repeat(bytes - base).into());
    let largest = padded(65_536).unwrap();
    assert!(padded(65_537).is_err());
    let (rules, key, _) = sample(&RoomVersionRules::V11);
    let known = ServerKey { public: key.public_key(), until: MilliSecondsSinceUnixEpoch(UInt::MAX) };
    let ring = KeyRing::from([(server_name!("a.example").to_owned(), [(key.id().to_owned(), known)].into())]);
    assert!(check(rules, &largest, &ring, &BTreeSet::new()).is_ok(), "the signature can be checked");
}

#[test]
fn before_version_11_the_whole_event_is_counted_too() {
    let (rules, _, pdu) = sample(&RoomVersionRules::V10);
    let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
    event["type"] = "💥".repeat(255).into();
    let mut padded = |bytes: usize| {
        event["content"]["pad"] = "".into();
        let pad = bytes - event.to_string().len();
        event["content"]["pad"] = "p".repeat(pad).into();
        Pdu::parse(rules, event.to_string().as_bytes())
    };
    assert!(padded(65_536).is_ok());
    assert!(padded(65_537).is_err());
}

#[test]
fn whoever_counts_the_years_from_elsewhere_is_heard() {
    for rules in [&RoomVersionRules::V1, &RoomVersionRules::V5, &RoomVersionRules::V11] {
        let (_, _, pdu) = sample(rules);
        let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
        event["origin_server_ts"] = json!(-5);
        let pdu = Pdu::parse(rules, event.to_string().as_bytes()).unwrap();
        assert_eq!(pdu.origin_server_ts(), MilliSecondsSinceUnixEpoch(UInt::MIN));
        assert!(pdu.json().contains(r#""origin_server_ts":-5,"#));
        let again = Pdu::restore(rules, pdu.event_id().to_owned(), pdu.json()).unwrap();
        assert_eq!((again.time(), pdu.time()), (-5, -5));
    }
}

#[test]
fn what_is_malformed_has_an_id_too() {
    for rules in [&RoomVersionRules::V1, &RoomVersionRules::V5, &RoomVersionRules::V11] {
        let (_, _, pdu) = sample(rules);
        assert_eq!(id_of(rules, pdu.json().as_bytes()).as_deref(), Some(pdu.event_id()));
        let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
        event["unsigned"] = json!({ "age": 1.5 });
        event["content"]["body"] = "x".repeat(70_000).into();
        let text = event.to_string();
        assert!(Pdu::parse(rules, text.as_bytes()).is_err());
        assert_eq!(id_of(rules, text.as_bytes()).as_deref(), Some(pdu.event_id()));
    }
    assert_eq!(id_of(&RoomVersionRules::V11, b"[]"), None);
}

#[test]
fn depth_and_lists_have_limits() {
    for depth in [json!(-1), json!(9_007_199_254_740_992_u64), json!(u64::MAX), json!(1.5), json!("1")] {
        assert!(parse_with(|event| event["depth"] = depth.clone()).is_err(), "{depth}");
    }
    let ids = |n: usize| Value::from((0..n).map(|n| format!("$e{n}")).collect::<Vec<_>>());
    assert!(parse_with(|event| event["prev_events"] = ids(20)).is_ok());
    assert!(parse_with(|event| event["prev_events"] = ids(21)).is_err());
    assert!(parse_with(|event| event["auth_events"] = ids(10)).is_ok());
    assert!(parse_with(|event| event["auth_events"] = ids(11)).is_err());
    assert!(parse_with(|event| event["prev_events"] = json!([{}])).is_err());
    assert!(parse_with(|event| event["hashes"] = json!({"sha256": 1})).is_err());
    assert!(parse_with(|event| event["hashes"]["other"] = json!(1)).is_err());
    assert!(parse_with(|event| event["hashes"]["other"] = json!("x")).is_ok());
    assert!(parse_with(|event| event["signatures"] = json!({"a.example": []})).is_err());
    assert!(parse_with(|event| event["content"] = json!([])).is_err());
    assert!(parse_with(|event| event["origin_server_ts"] = json!(1.5)).is_err());
}

#[test]
fn in_rooms_of_versions_1_and_2_an_event_is_named_with_its_hashes() {
    for rules in [&RoomVersionRules::V1, &RoomVersionRules::V2] {
        let (_, _, pdu) = sample(rules);
        let takes = |named: Value| {
            let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
            event["prev_events"] = json!([named]);
            Pdu::parse(rules, event.to_string().as_bytes()).is_ok()
        };
        assert!(takes(json!(["$e:a.example", {}])));
        assert!(takes(json!(["$e:a.example", {"sha256": "x", "other": "y"}])));
        for named in [
            json!("$e:a.example"),
            json!(["$e:a.example"]),
            json!(["$e:a.example", "x"]),
            json!(["$e:a.example", {"sha256": "x", "other": 1}]),
            json!(["$e:a.example", {}, {}]),
            json!([{}, "$e:a.example"]),
        ] {
            assert!(!takes(named.clone()), "{named}");
        }
    }
}

#[test]
fn unsigned_and_event_id_do_not_change_the_event() {
    let (_, _, pdu) = sample(&RoomVersionRules::V11);
    for age in [json!(5), json!(1.5), json!(1e300), json!(u64::MAX)] {
        let same = parse_with(|event| {
            event["unsigned"] = json!({ "age": age });
            event["event_id"] = "$other".into();
        });
        assert_eq!(same.unwrap(), pdu, "{age}");
    }
}

#[test]
fn create_event_of_version_12_names_the_room() {
    let room = super::Room::new(&RoomVersionRules::V12, "@a:a.example");
    let create = room.state_event(&"m.room.create".into(), "").unwrap();
    assert_eq!(create.room_id().as_str()[1..], create.event_id().as_str()[1..]);
    assert!(!create.json().contains("room_id"));
    let listed =
        room.events.values().any(|event| event.auth_events().iter().any(|id| *id == create.event_id()));
    assert!(!listed);
}
