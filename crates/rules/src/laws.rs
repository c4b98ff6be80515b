//! What must hold for any events, and a small room to try it on.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::{RoomIdFormatVersion, RoomVersionRules},
};
use serde_json::{Value, json};

use crate::{
    Pdu,
    auth::{allowed_by_state, auth_types},
    build::{Draft, Place, Reference, SigningKey, build},
    json as strict,
    pdu::Judged,
    power::Power,
    redact,
    resolve::{
        Conflict, StateMap, auth_chain, auth_difference, conflicted, relevant_keys, resolve, resolve_naively,
        subgraph,
    },
};

fn object(value: &Value) -> CanonicalJsonObject {
    strict::object(value.to_string().as_bytes()).unwrap()
}

fn user(id: &str) -> &UserId {
    <&UserId>::try_from(id).unwrap()
}

/// A room on one line of history, whose state the tests may fork.
#[derive(Clone)]
pub(crate) struct Room {
    rules: &'static RoomVersionRules,
    id: Option<OwnedRoomId>,
    pub(crate) events: BTreeMap<OwnedEventId, Pdu>,
    pub(crate) state: StateMap,
    last: Vec<OwnedEventId>,
    clock: u64,
}

impl Room {
    /// Created by `creator`, who has joined and has all power; anybody may join.
    pub(crate) fn new(rules: &'static RoomVersionRules, creator: &str) -> Self {
        let named_after_create = rules.room_id_format == RoomIdFormatVersion::V2;
        let server = user(creator).server_name();
        let id = (!named_after_create).then(|| RoomId::parse(format!("!r:{server}")).unwrap());
        let mut room =
            Self { rules, id, events: BTreeMap::new(), state: StateMap::new(), last: Vec::new(), clock: 0 };
        let create = room.send(creator, "m.room.create", Some(""), &json!({"creator": creator}));
        room.id = Some(create.room_id().to_owned());
        room.member(creator, creator, "join");
        let users = if named_after_create { json!({}) } else { json!({ creator: 100 }) };
        room.send(creator, "m.room.power_levels", Some(""), &json!({ "users": users }));
        room.send(creator, "m.room.join_rules", Some(""), &json!({"join_rule": "public"}));
        room
    }

    fn draft(&self, sender: &str, draft: Draft) -> Pdu {
        let sender = user(sender);
        let content = serde_json::value::to_raw_value(&draft.content).unwrap();
        let types =
            auth_types(self.rules, &draft.kind, sender, draft.state_key.as_deref(), &content).unwrap();
        let reference = |id: &OwnedEventId| Reference::to(self.rules, &self.events[id]);
        let auth: Vec<Reference> =
            types.iter().filter_map(|key| self.state.get(key).map(reference)).collect();
        let last: Vec<Reference> = self.last.iter().map(reference).collect();
        let place = Place {
            rules: self.rules,
            room_id: self.id.as_deref(),
            sender,
            prev_events: &last,
            auth_events: &auth,
            depth: self.clock,
            origin_server_ts: MilliSecondsSinceUnixEpoch(u32::try_from(1_000 + self.clock).unwrap().into()),
        };
        build(&place, draft, sender.server_name(), &SigningKey::from_seed([1; 32], "k").unwrap()).unwrap()
    }

    /// Adds an event whether or not it is allowed.
    pub(crate) fn send(&mut self, sender: &str, kind: &str, key: Option<&str>, content: &Value) -> Pdu {
        let draft = Draft {
            kind: kind.into(),
            state_key: key.map(str::to_owned),
            content: object(content),
            redacts: None,
            sticky_ms: None,
        };
        self.clock += 1;
        let pdu = self.draft(sender, draft);
        self.add(&pdu);
        pdu
    }

    fn add(&mut self, pdu: &Pdu) {
        let id = pdu.event_id().to_owned();
        if let Some((kind, key)) = pdu.state() {
            self.state.insert((kind, key.to_owned()), id.clone());
        }
        self.events.insert(id.clone(), pdu.clone());
        self.last = vec![id];
    }

    pub(crate) fn say(&mut self, sender: &str, body: &str) -> Pdu {
        self.message(sender, json!({"msgtype": "m.text", "body": body}))
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub(crate) fn message(&mut self, sender: &str, content: Value) -> Pdu {
        self.send(sender, "m.room.message", None, &content)
    }

    pub(crate) fn member(&mut self, sender: &str, of: &str, membership: &str) -> Pdu {
        self.send(sender, "m.room.member", Some(of), &json!({"membership": membership}))
    }

    pub(crate) fn redact(&mut self, sender: &str, target: &EventId) -> Pdu {
        let pdu = self.draft(sender, Draft::redaction(target, None));
        self.add(&pdu);
        pdu
    }

    pub(crate) fn state_event(&self, kind: &StateEventType, key: &str) -> Option<Pdu> {
        self.state.get(&(kind.clone(), key.to_owned())).map(|id| self.events[id].clone())
    }

    pub(crate) fn power(&self) -> Power {
        let create = self.state_event(&StateEventType::RoomCreate, "").unwrap();
        Power::new(self.rules, &create, self.state_event(&StateEventType::RoomPowerLevels, "").as_ref())
    }

    fn allows(&self, pdu: &Pdu) -> bool {
        allowed_by_state(self.rules, pdu, |kind, key| self.state_event(kind, key)).is_ok()
    }
}

/// A signed message of `@a:a.example` saying hello, sent at 1,005 ms.
pub(crate) fn sample(rules: &'static RoomVersionRules) -> (&'static RoomVersionRules, SigningKey, Pdu) {
    let mut room = Room::new(rules, "@a:a.example");
    (rules, SigningKey::from_seed([1; 32], "k").unwrap(), room.say("@a:a.example", "hello"))
}

/// The event as it is if it names one event less among those that justify it.
pub(crate) fn without_auth_event(rules: &RoomVersionRules, pdu: &Pdu, left_out: &EventId) -> Pdu {
    let mut object = pdu.to_object();
    if let Some(CanonicalJsonValue::Array(named)) = object.get_mut("auth_events") {
        named.retain(|id| id.as_str() != Some(left_out.as_str()));
    }
    Pdu::from_object(rules, object).unwrap()
}

/// Who acts in the random rooms. The last is not in them from the beginning.
const USERS: [&str; 5] = ["@a:a.example", "@b:b.example", "@c:c.example", "@d:d.example", "@e:e.example"];

/// One random act: who, what, on whom.
type Act = (usize, u8, usize);

/// Plays acts on a fork; what the rules refuse does not happen.
fn play(room: &mut Room, acts: &[Act], clock: u64) {
    room.clock = clock;
    for (who, what, whom) in acts {
        let (who, whom) = (USERS[who % 5], USERS[whom % 5]);
        let level = i64::from(*what) % 60;
        let draft = match what % 6 {
            0 => ("m.room.member", who, json!({"membership": "join"})),
            1 => ("m.room.member", whom, json!({"membership": "ban"})),
            2 => ("m.room.member", whom, json!({"membership": "leave"})),
            3 => ("m.room.power_levels", "", json!({"users": {USERS[0]: 100, whom: level}})),
            4 => {
                ("m.room.join_rules", "", json!({"join_rule": if level > 30 { "public" } else { "invite" }}))
            }
            _ => ("m.room.topic", "", json!({"topic": format!("{level}")})),
        };
        room.clock += 1;
        let (kind, key, content) = draft;
        let content =
            if kind == "m.room.power_levels" && room.rules.authorization.explicitly_privilege_room_creators {
                json!({"users": {USERS[1]: level}})
            } else {
                content
            };
        let pdu = room.draft(who, Draft::state(TimelineEventType::from(kind), key, object(&content)));
        if room.allows(&pdu) {
            room.add(&pdu);
        }
    }
}

/// Two or three forks of one room, and a fetch function over all their events.
fn forks(
    rules: &'static RoomVersionRules,
    common: &[Act],
    tails: &[Vec<Act>],
) -> (Vec<StateMap>, BTreeMap<OwnedEventId, Pdu>) {
    let mut room = Room::new(rules, USERS[0]);
    for user in &USERS[1..4] {
        room.member(user, user, "join");
    }
    play(&mut room, common, 20);
    let mut events = room.events.clone();
    let mut states = Vec::new();
    for (n, tail) in tails.iter().enumerate() {
        let mut fork = room.clone();
        play(&mut fork, tail, 100 + 7 * n as u64);
        events.extend(fork.events.clone());
        states.push(fork.state);
    }
    (states, events)
}

fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec((0..5usize, any::<u8>(), 0..5usize), 0..most)
}

fn version() -> impl Strategy<Value = &'static RoomVersionRules> {
    prop::sample::select(vec![
        &RoomVersionRules::V1,
        &RoomVersionRules::V2,
        &RoomVersionRules::V3,
        &RoomVersionRules::V5,
        &RoomVersionRules::V6,
        &RoomVersionRules::V10,
        &RoomVersionRules::V11,
        &RoomVersionRules::V12,
    ])
}

/// Any JSON that canonical JSON can express.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991i64..=9_007_199_254_740_991).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn canonical_json_round_trips(map in prop::collection::btree_map(any::<String>(), any_json(), 0..6)) {
        let read = object(&Value::Object(map.into_iter().collect()));
        let text = strict::canonical(&read);
        prop_assert_eq!(&strict::object(text.as_bytes()).unwrap(), &read);
        prop_assert_eq!(strict::canonical(&strict::object(text.as_bytes()).unwrap()), text);
    }

    #[test]
    fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), rules in version()) {
        let _ = Pdu::parse(rules, &bytes);
    }

    #[test]
    fn parsing_damaged_events_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), rules in version()) {
        let (_, _, pdu) = sample(rules);
        let mut bytes = pdu.json().as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Pdu::parse(rules, &bytes) {
            prop_assert_eq!(Pdu::restore(rules, read.event_id().to_owned(), read.json()).unwrap(), read);
        }
    }

    #[test]
    fn redaction_is_idempotent(content in prop::collection::btree_map(any::<String>(), any_json(), 0..6), rules in version(),
        kind in prop::sample::select(vec!["m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.aliases", "m.room.redaction", "x"])) {
        let mut room = Room::new(rules, USERS[0]);
        let mut content = Value::Object(content.into_iter().collect());
        content["membership"] = "join".into();
        let pdu = room.send(USERS[0], kind, Some(USERS[0]), &content);
        let once = redact::event(rules, &pdu).unwrap();
        prop_assert_eq!(once.event_id(), pdu.event_id());
        prop_assert_eq!(&redact::event(rules, &once).unwrap(), &once);
        let again = Pdu::parse(rules, once.json().as_bytes()).unwrap();
        prop_assert_eq!(again.event_id(), pdu.event_id());
    }

    #[test]
    fn resolution_does_not_depend_on_order(rules in version(), common in acts(6), tails in prop::collection::vec(acts(10), 2..4)) {
        let (mut states, events) = forks(rules, &common, &tails);
        let fetch = |id: &EventId| events.get(id).cloned().map(Judged::from);
        let resolved = resolve_naively(rules, &states, fetch).unwrap();
        states.reverse();
        prop_assert_eq!(&resolve_naively(rules, &states, fetch).unwrap(), &resolved);
        states.rotate_left(1);
        prop_assert_eq!(&resolve_naively(rules, &states, fetch).unwrap(), &resolved);
    }

    #[test]
    fn reduced_resolution_equals_the_naive_one(rules in version(), common in acts(6), tails in prop::collection::vec(acts(10), 2..4)) {
        let (states, events) = forks(rules, &common, &tails);
        let fetch = |id: &EventId| events.get(id).cloned().map(Judged::from);
        let naive = resolve_naively(rules, &states, fetch).unwrap();

        let auth_of = |id: &OwnedEventId| events[id].auth_events().to_vec();
        let chains: Vec<BTreeSet<OwnedEventId>> =
            states.iter().map(|state| auth_chain(state.values().cloned(), auth_of)).collect();
        let keys = conflicted(&states);
        let ids: BTreeSet<OwnedEventId> = keys.values().flatten().cloned().collect();
        let (difference, between) = (auth_difference(&chains), subgraph(&ids, auth_of));
        let full: BTreeSet<&OwnedEventId> = ids.iter().chain(&difference).chain(&between).collect();
        let relevant = relevant_keys(rules, full.into_iter().map(|id| &events[id]));
        let reduce = |state: &StateMap| -> StateMap {
            let mut state = state.clone();
            state.retain(|key, _| keys.contains_key(key) || relevant.contains(key));
            state
        };
        let conflict = Conflict { states: states.iter().map(reduce).collect(), auth_difference: difference, subgraph: between };
        let mut merged = states[0].clone();
        merged.retain(|key, _| !keys.contains_key(key));
        for (key, id) in resolve(rules, &conflict, fetch).unwrap() {
            merged.entry(key).or_insert(id);
        }
        prop_assert_eq!(merged, naive);
    }
}

mod limits {
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
        assert!(
            parse_with(|event| event["sender"] = format!("@{}:a.example", "u".repeat(250)).into()).is_err()
        );
    }

    #[test]
    fn whole_event_is_counted_in_canonical_bytes() {
        let base = parse_with(|event| event["content"]["pad"] = "".into()).unwrap().json().len();
        let padded =
            |bytes: usize| parse_with(|event| event["content"]["pad"] = "p".repeat(bytes - base).into());
        let largest = padded(65_536).unwrap();
        assert!(padded(65_537).is_err());
        let (rules, key, _) = sample(&RoomVersionRules::V11);
        let known = ServerKey { public: key.public_key(), until: MilliSecondsSinceUnixEpoch(UInt::MAX) };
        let ring =
            KeyRing::from([(server_name!("a.example").to_owned(), [(key.id().to_owned(), known)].into())]);
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
        assert!(parse_with(|event| event["unsigned"] = json!({"x": 1.5})).is_err());
        assert!(parse_with(|event| event["hashes"] = json!({"sha256": 1})).is_err());
        assert!(parse_with(|event| event["signatures"] = json!({"a.example": []})).is_err());
        assert!(parse_with(|event| event["content"] = json!([])).is_err());
        assert!(parse_with(|event| event["origin_server_ts"] = json!(1.5)).is_err());
    }

    #[test]
    fn unsigned_and_event_id_do_not_change_the_event() {
        let (_, _, pdu) = sample(&RoomVersionRules::V11);
        let same = parse_with(|event| {
            event["unsigned"] = json!({"age": 5});
            event["event_id"] = "$other".into();
        });
        assert_eq!(same.unwrap(), pdu);
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
}

mod vectors {
    //! Test vectors of the specification, appendices, "Cryptographic test vectors" and "Canonical JSON".

    use ruma::{room_version_rules::RoomVersionRules, server_name, signatures::hash_and_sign_event};

    use crate::{build::SigningKey, json};

    const SEED: &str = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

    fn signed(text: &str) -> String {
        let mut object = json::object(text.as_bytes()).unwrap();
        SigningKey::from_line(SEED).unwrap().sign_json(server_name!("domain"), &mut object);
        let signatures = object["signatures"].as_object().unwrap()["domain"].as_object().unwrap();
        signatures["ed25519:1"].as_str().unwrap().to_owned()
    }

    #[test]
    fn signing_json() {
        assert_eq!(
            signed("{}"),
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
        );
        assert_eq!(
            signed(r#"{"one": 1, "two": "Two"}"#),
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"
        );
    }

    #[test]
    fn canonical_form() {
        let canonical = |text: &str| json::canonical(&json::object(text.as_bytes()).unwrap());
        assert_eq!(canonical(r#"{"b": "2", "a": "1"}"#), r#"{"a":"1","b":"2"}"#);
        assert_eq!(canonical(r#"{"本": 2, "日": 1}"#), r#"{"日":1,"本":2}"#);
        assert_eq!(canonical(r#"{"a": "\u65E5"}"#), r#"{"a":"日"}"#);
        assert_eq!(canonical(r#"{"a": null}"#), r#"{"a":null}"#);
    }

    #[test]
    fn hashing_and_signing_events() {
        let mut event = json::object(
            br#"{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,
                "signatures":{},"hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,
                "unsigned":{"age_ts":1000000}}"#,
        )
        .unwrap();
        let key = crate::build::test_pair(SEED);
        hash_and_sign_event("domain", &key, &mut event, &RoomVersionRules::V1.redaction).unwrap();
        let hash = event["hashes"].as_object().unwrap()["sha256"].as_str().unwrap();
        assert_eq!(hash, "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos");
        let signature =
            event["signatures"].as_object().unwrap()["domain"].as_object().unwrap()["ed25519:1"].as_str();
        assert_eq!(
            signature,
            Some("KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg")
        );
    }
}
