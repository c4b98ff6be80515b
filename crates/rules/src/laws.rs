//! What must hold for any events, and a small room to try it on.

mod limits;
mod vectors;

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
    pdu::{Judged, kind_of},
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
            kind: kind_of(kind),
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
