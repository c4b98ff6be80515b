//! Invites of an address that has become a user's: who may have signed for that, and what counts as a signature.
//!
//! The specification takes any signature by any key of the room. Synapse tries the first signature alone, with one key after
//! another, and so does this: what two servers answer differently parts the room, and an event holds hundreds of each, which makes
//! hundreds of thousands of pairs.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{CanonicalJsonObject, CanonicalJsonValue};
use serde_json::value::RawValue;

use crate::{
    Pdu, json,
    opened::{is_of_small_order, is_signature},
    unpadded,
};

const SAID: &str = "third_party_invite";
const KEY_BYTES: usize = 32;
const ED25519: &str = "ed25519:";

/// The keys of those who may sign for an invited address, as an `m.room.third_party_invite` event has them, in the order in
/// which they are tried. At one that cannot be read other servers fail: it and those after it are none.
pub fn keys(invited: &Pdu) -> Vec<Vec<u8>> {
    keys_in(&invited.content_object())
}

fn keys_in(content: &CanonicalJsonObject) -> Vec<Vec<u8>> {
    let listed: &[CanonicalJsonValue] = match content.get("public_keys") {
        Some(CanonicalJsonValue::Array(listed)) => listed,
        // Texts and objects are lists elsewhere too, in which there is no key.
        None | Some(CanonicalJsonValue::String(_) | CanonicalJsonValue::Object(_)) => &[],
        Some(_) => return Vec::new(),
    };
    let first = content.get("public_key").map(Some);
    let more = listed.iter().map(|listed| listed.as_object()?.get("public_key"));
    let read = |key: Option<&CanonicalJsonValue>| {
        unpadded::decode(key?.as_str()?).filter(|key| key.len() == KEY_BYTES)
    };
    let keys = first.into_iter().chain(more).map_while(read);
    keys.filter(|key| !is_of_small_order(key)).collect()
}

/// Whether one of the keys has made the signature, in base64, of the text.
pub fn is_signature_of(keys: &[Vec<u8>], signature: &str, signed: &str) -> bool {
    keys.iter().any(|key| is_signature(key, signature, signed))
}

/// What authorization reads of an invited address: its keys, in the one base64 that ruma reads.
pub(crate) fn address_to_judge(content: &CanonicalJsonObject) -> CanonicalJsonObject {
    let written = |key: Vec<u8>| object("public_key", STANDARD_NO_PAD.encode(key).into());
    let keys: Vec<CanonicalJsonValue> = keys_in(content).into_iter().map(written).collect();
    CanonicalJsonObject::from([("public_keys".to_owned(), keys.into())])
}

/// What authorization reads of an invite that says something of a third party: what was signed, with the first signature alone.
/// `None` for every other membership.
pub(crate) fn member_to_judge(content: &RawValue) -> Option<CanonicalJsonObject> {
    // Asked of every member that is read, and few say this.
    if !content.get().contains(SAID) {
        return None;
    }
    let fields = fields(content)?;
    let is_invite = fields.get("membership").is_some_and(|membership| membership.get() == r#""invite""#);
    let said = fields.get(SAID).filter(|_| is_invite)?;
    let signed = signed_in(said).map(|mut signed| {
        let signature = signed.get("signatures").and_then(first_signature);
        let by_key = signature.map(|signature| object(&format!("{ED25519}0"), signature.into()));
        let signatures = by_key.map(|by_key| ("judged".to_owned(), by_key));
        let signatures: CanonicalJsonObject = signatures.into_iter().collect();
        signed.insert("signatures".to_owned(), signatures.into());
        ("signed".to_owned(), CanonicalJsonValue::Object(signed))
    });
    let said: CanonicalJsonObject = signed.into_iter().collect();
    Some(CanonicalJsonObject::from([
        ("membership".to_owned(), "invite".to_owned().into()),
        (SAID.to_owned(), said.into()),
    ]))
}

fn object(field: &str, value: CanonicalJsonValue) -> CanonicalJsonValue {
    CanonicalJsonObject::from([(field.to_owned(), value)]).into()
}

fn fields(object: &RawValue) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(object.get()).ok()
}

/// What was signed. Numbers that canonical JSON does not have are not rounded: with others it would be another text.
fn signed_in(said: &RawValue) -> Option<CanonicalJsonObject> {
    json::object(fields(said)?.get("signed")?.get().as_bytes()).ok()
}

/// The first ed25519 signature, in the one base64 that ruma reads. There is none if something else than an object comes before
/// it where signatures are.
fn first_signature(signatures: &CanonicalJsonValue) -> Option<String> {
    for of_server in signatures.as_object()?.values() {
        if let Some((_, signature)) = of_server.as_object()?.iter().find(|(id, _)| id.starts_with(ED25519)) {
            let signature = unpadded::decode(signature.as_str()?)?;
            let is_forged = signature.get(..KEY_BYTES).is_none_or(is_of_small_order);
            return (!is_forged).then(|| STANDARD_NO_PAD.encode(signature));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    use ruma::{
        CanonicalJsonObject, EventId, OwnedEventId, events::StateEventType,
        room_version_rules::RoomVersionRules, server_name, state_res::Event,
    };
    use serde_json::{Value, json};

    use super::keys;
    use crate::{
        Error, Pdu,
        auth::{allowed_by_auth_events, allowed_by_state, events_needed},
        build::SigningKey,
        laws::Room,
        owned_state,
        pdu::Judged,
        resolve::resolve_naively,
    };

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";
    /// The neutral point as a key, and the signature by it that fits every text.
    const NEUTRAL: &str = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const OF_NEUTRAL: &str =
        "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmYBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn notary(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32], "0").unwrap()
    }

    fn key(seed: u8) -> String {
        STANDARD_NO_PAD.encode(notary(seed).public_key())
    }

    /// The signature that says that the address is Bob's.
    fn signature(seed: u8) -> String {
        let mut object: CanonicalJsonObject =
            serde_json::from_value(json!({ "mxid": BOB, "token": "tok" })).unwrap();
        notary(seed).sign_json(server_name!("is.example"), &mut object);
        let object = serde_json::to_value(object).unwrap();
        object["signatures"]["is.example"]["ed25519:0"].as_str().unwrap().to_owned()
    }

    fn url_safe(text: &str) -> String {
        text.replace('+', "-").replace('/', "_")
    }

    /// With characters that are no base64.
    fn odd(text: &str) -> String {
        format!("!!!!{text}")
    }

    fn said(signatures: &Value) -> Value {
        let signed = json!({ "mxid": BOB, "token": "tok", "signatures": signatures });
        json!({ "membership": "invite", "third_party_invite": { "display_name": "b", "signed": signed } })
    }

    /// Alice invites an address, then Bob, whose it is. The room before she does, and the second invite.
    fn invited(rules: &'static RoomVersionRules, address: &Value, content: &Value) -> (Room, Pdu) {
        let mut room = Room::new(rules, ALICE);
        room.send(ALICE, "m.room.third_party_invite", Some("tok"), address);
        let invite = room.clone().send(ALICE, "m.room.member", Some(BOB), content);
        (room, invite)
    }

    fn allowed(rules: &RoomVersionRules, (room, invite): &(Room, Pdu)) -> Result<(), Error> {
        let known: Vec<Judged> =
            events_needed(rules, invite).iter().map(|id| room.events[id].clone().into()).collect();
        let by_state = allowed_by_state(rules, invite, |kind, key| room.state_event(kind, key));
        assert_eq!(allowed_by_auth_events(rules, invite, &known).is_ok(), by_state.is_ok());
        by_state
    }

    /// Addresses and signatures, and what `_verify_third_party_invite` of Synapse answers: whether the invite is one.
    #[test]
    fn who_an_address_belongs_to_is_believed_as_synapse_believes_it() {
        let (right, wrong) = (signature(1), signature(2));
        let one = json!({ "public_key": key(1) });
        let two = |first: &str, then: &str| json!({ "a.example": { "ed25519:0": first }, "is.example": { "ed25519:0": then } });
        let by = |signature: &str| json!({ "is.example": { "ed25519:0": signature } });
        let listed = |keys: [&str; 2]| json!({ "public_keys": keys.map(|key| json!({ "public_key": key })) });
        let with = |public_key: Value, public_keys: Value| json!({ "public_key": public_key, "public_keys": public_keys });
        let cases: Vec<(Value, Value, bool)> = vec![
            (one.clone(), by(&right), true),
            (one.clone(), by(&wrong), false),
            (one.clone(), json!({}), false),
            (one.clone(), json!(null), false),
            (json!({}), by(&right), false),
            // However they are written.
            (one.clone(), by(&url_safe(&right)), true),
            (one.clone(), by(&odd(&right)), true),
            (one.clone(), by(&format!("{right}==")), true),
            (json!({ "public_key": url_safe(&key(1)) }), by(&right), true),
            (json!({ "public_key": odd(&key(1)) }), by(&right), true),
            // Whichever key it is.
            (listed([&key(2), &key(1)]), by(&right), true),
            (listed([&key(1), &key(2)]), by(&right), true),
            (with(json!(key(2)), json!([one])), by(&right), true),
            // Of signatures the first counts.
            (one.clone(), two(&wrong, &right), false),
            (one.clone(), two(&right, &wrong), true),
            (one.clone(), json!({ "is.example": { "ed25519:0": wrong, "ed25519:1": right } }), false),
            (one.clone(), json!({ "is.example": { "ed25519:0": 5, "ed25519:1": right } }), false),
            (one.clone(), json!({ "is.example": { "curve:0": "x", "ed25519:": right } }), true),
            (one.clone(), json!({ "is.example": { "ed448:0": right } }), false),
            (one.clone(), json!({ "a.example": {}, "is.example": { "ed25519:0": right } }), true),
            (one.clone(), json!({ "a.example": "x", "is.example": { "ed25519:0": right } }), false),
            (one.clone(), json!({ "is.example": { "ed25519:0": right }, "z.example": "x" }), true),
            // What is no key ends the search.
            (listed(["", &key(1)]), by(&right), false),
            (listed([&key(1), ""]), by(&right), true),
            (with(json!(null), json!([one])), by(&right), false),
            (with(json!(key(2)), json!([5, one])), by(&right), false),
            (with(json!(key(1)), json!([5])), by(&right), true),
            (with(json!(key(1)), json!({ "x": 1 })), by(&right), true),
            (with(json!(key(1)), json!("x")), by(&right), true),
            (with(json!(key(1)), json!(null)), by(&right), false),
            (with(json!(key(1)), json!(5)), by(&right), false),
            // Points of small order sign nothing, and are keys that are wrong.
            (json!({ "public_key": NEUTRAL }), by(OF_NEUTRAL), false),
            (listed([NEUTRAL, &key(1)]), by(&right), true),
        ];
        for version in crate::version::SUPPORTED {
            let rules = crate::version::rules(&version).unwrap();
            for (address, signatures, is_believed) in &cases {
                let answer = allowed(rules, &invited(rules, address, &said(signatures)));
                assert_eq!(answer.is_ok(), *is_believed, "{version}: {address} {signatures} {answer:?}");
            }
        }
    }

    #[test]
    fn nothing_but_what_was_signed_makes_an_invite_by_address() {
        let address = json!({ "public_key": key(1) });
        let good = said(&json!({ "is.example": { "ed25519:0": signature(1) } }));
        for rules in [&RoomVersionRules::V1, &RoomVersionRules::V11, &RoomVersionRules::V12] {
            assert_eq!(allowed(rules, &invited(rules, &address, &good)), Ok(()));
            for (field, other) in [("mxid", ALICE), ("sender", ALICE)] {
                let mut changed = good.clone();
                changed["third_party_invite"]["signed"][field] = json!(other);
                assert!(allowed(rules, &invited(rules, &address, &changed)).is_err(), "{field}");
            }
            // Nor does whoever has the power to invite get round it. Of some of these nobody can say what justifies them.
            let mut room = Room::new(rules, ALICE);
            for said in [json!(null), json!(5), json!("x"), json!([]), json!({}), json!({ "signed": 5 })] {
                let content = json!({ "membership": "invite", "third_party_invite": said });
                let plain = room.member(ALICE, BOB, "invite");
                let mut object = plain.to_object();
                object.insert("content".to_owned(), content.try_into().unwrap());
                let invite = Pdu::from_object(rules, object).unwrap();
                let answer = allowed_by_state(rules, &invite, |kind, key| room.state_event(kind, key));
                assert!(matches!(answer, Err(Error::Forbidden(_))), "{said}");
            }
            let by_other = {
                let (mut room, _) = invited(rules, &address, &good);
                room.member("@carol:a.example", "@carol:a.example", "join");
                let invite = room.clone().send("@carol:a.example", "m.room.member", Some(BOB), &good);
                (room, invite)
            };
            assert!(allowed(rules, &by_other).is_err(), "not by whoever invited the address");
        }
    }

    /// Ruma tries each signature that it is shown with each key that it is shown.
    #[test]
    fn of_many_signatures_one_is_tried_with_each_key() {
        let rules = &RoomVersionRules::V11;
        let others = (0..900_u32).map(|n| {
            let other = [&n.to_be_bytes()[..], &[7; 28]].concat();
            json!({ "public_key": STANDARD_NO_PAD.encode(other) })
        });
        let address = json!({ "public_keys": others.collect::<Vec<Value>>() });
        let wrong = signature(2);
        let signatures: BTreeMap<String, &str> =
            (0..500).map(|n| (format!("ed25519:{n:03}"), wrong.as_str())).collect();
        let (room, invite) = invited(rules, &address, &said(&json!({ "is.example": signatures })));
        let shown: Value = serde_json::from_str(Event::content(&invite).get()).unwrap();
        let shown = &shown["third_party_invite"]["signed"]["signatures"];
        assert_eq!(*shown, json!({ "judged": { "ed25519:0": wrong } }));
        let asked = room.state_event(&StateEventType::RoomThirdPartyInvite, "tok").unwrap();
        let shown: Value = serde_json::from_str(Event::content(&asked).get()).unwrap();
        assert_eq!(shown["public_keys"].as_array().unwrap().len(), 900);
        assert_eq!(keys(&asked).len(), 900);
        assert!(allowed(rules, &(room, invite.clone())).is_err());
        assert!(invite.content().get().contains("ed25519:499"), "the event itself stays as it is");
    }

    #[test]
    fn where_states_are_resolved_it_is_believed_as_everywhere() {
        let bob = (StateEventType::RoomMember, BOB.to_owned());
        let address = json!({ "public_key": odd(&key(1)) });
        let written_oddly = json!({ "is.example": { "ed25519:0": odd(&signature(1)) } });
        let second = json!({
            "a.example": { "ed25519:0": signature(2) }, "is.example": { "ed25519:0": signature(1) },
        });
        for rules in
            [&RoomVersionRules::V6, &RoomVersionRules::V11, &RoomVersionRules::V12, &owned_state::V11]
        {
            for (signatures, is_believed) in [(&written_oddly, true), (&second, false)] {
                let (room, invite) = invited(rules, &address, &said(signatures));
                let id = invite.event_id().to_owned();
                let mut events: BTreeMap<OwnedEventId, Pdu> = room.events.clone();
                events.insert(id.clone(), invite);
                let mut fork = room.state.clone();
                fork.insert(bob.clone(), id.clone());
                let fetch = |id: &EventId| events.get(id).cloned().map(Judged::from);
                let resolved = resolve_naively(rules, &[fork, room.state], fetch).unwrap();
                assert_eq!(resolved.get(&bob), is_believed.then_some(&id), "{signatures}");
            }
        }
    }
}
