//! Whatever comes over the wire: the parsers answer, never panic, and what they let through is what it says it is.

mod mutated;

use proptest::prelude::*;
use ruma::{ServerName, room_version_rules::RoomVersionRules};
use serde_json::{Value, json, value::to_raw_value};

use crate::{Pdu, acl::Acl, glob::Glob, json, laws::sample, names};

const VERSIONS: [&RoomVersionRules; 5] = [
    &RoomVersionRules::V1,
    &RoomVersionRules::V3,
    &RoomVersionRules::V6,
    &RoomVersionRules::V11,
    &RoomVersionRules::V12,
];

/// JSON that is close to what an event holds, or far from it.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,300}".prop_map(Value::from),
        "[@!$#][a-z:.]{0,260}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 40, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..25).prop_map(Value::from),
            prop::collection::hash_map("[a-z_0-9:.]{0,12}", inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 14] = [
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "prev_events",
    "auth_events",
    "depth",
    "origin_server_ts",
    "hashes",
    "signatures",
    "redacts",
    "unsigned",
    "event_id",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bytes_are_json_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(object) = json::object(&bytes) {
            let text = json::canonical(&object);
            prop_assert_eq!(json::object(text.as_bytes()).unwrap(), object);
        }
    }

    #[test]
    fn what_is_read_is_written_the_same_again(value in value()) {
        let text = json!({ "a": value }).to_string();
        if let Ok(object) = json::object(text.as_bytes()) {
            let canonical = json::canonical(&object);
            let again = json::object(canonical.as_bytes()).unwrap();
            prop_assert_eq!(json::canonical(&again), canonical);
        }
    }

    #[test]
    fn a_changed_event_is_an_event_or_an_error(
        version in 0..VERSIONS.len(),
        changes in prop::collection::vec((0..FIELDS.len(), prop::option::of(value())), 1..4),
        cut in prop::option::weighted(0.1, 0..600usize),
    ) {
        let (rules, _, pdu) = sample(VERSIONS[version]);
        let mut event: Value = serde_json::from_str(pdu.json()).unwrap();
        for (field, value) in changes {
            match value {
                Some(value) => event[FIELDS[field]] = value,
                None => drop(event.as_object_mut().unwrap().remove(FIELDS[field])),
            }
        }
        let text = event.to_string();
        let bytes = &text.as_bytes()[..cut.unwrap_or(text.len()).min(text.len())];
        if let Ok(pdu) = Pdu::parse(rules, bytes) {
            prop_assert!(pdu.json().len() <= 65_536);
            prop_assert!(pdu.prev_events().len() <= 20 && pdu.auth_events().len() <= 10);
            let ids = [pdu.event_id().as_str(), pdu.room_id().as_str(), pdu.sender().as_str()];
            prop_assert!(ids.iter().all(|id| id.len() <= 255));
            let again = Pdu::parse(rules, pdu.json().as_bytes()).unwrap();
            prop_assert_eq!(&again, &pdu);
            let stored = Pdu::restore(rules, pdu.event_id().to_owned(), pdu.json()).unwrap();
            prop_assert_eq!(stored.redacts(), pdu.redacts());
            prop_assert_eq!(stored.depth(), pdu.depth());
        }
    }

    #[test]
    fn a_server_name_is_a_host_and_nothing_more(name in "[a-zA-Z0-9.:@/%\\[\\]_ -]{0,40}|\\PC{0,20}") {
        let Some(server) = names::strict(&name) else { return Ok(()) };
        prop_assert_eq!(server.as_str(), &name);
        let odd = |character: char| !character.is_ascii_alphanumeric() && !"-.:[]".contains(character);
        prop_assert!(!name.contains(odd), "{}", name);
        let (host, port) = (server.host(), server.port());
        prop_assert_eq!(port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")), name);
    }

    #[test]
    fn patterns_match_as_the_naive_matcher_says(pattern in "[ab*?]{0,9}", text in "[ab]{0,9}") {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern.first(), text.first()) {
                (None, None) => true,
                (Some(b'*'), _) => {
                    naive(&pattern[1..], text) || (!text.is_empty() && naive(pattern, &text[1..]))
                }
                (Some(b'?'), Some(_)) => naive(&pattern[1..], &text[1..]),
                (Some(one), Some(other)) if one == other => naive(&pattern[1..], &text[1..]),
                _ => false,
            }
        }
        prop_assert_eq!(Glob::new(&pattern).matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn an_access_list_answers_whatever_it_holds(content in value(), allow in value(), deny in value()) {
        let server = <&ServerName>::try_from("a.example").unwrap();
        Acl::new(&to_raw_value(&content).unwrap()).allows(server);
        let list = json!({ "allow": allow, "deny": deny, "allow_ip_literals": content });
        Acl::new(&to_raw_value(&list).unwrap()).allows(server);
    }
}
