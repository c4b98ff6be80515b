//! The parsers on mutations of real inputs; `FUZZ_SECONDS` says for how long.

use std::collections::BTreeSet;

use chappe_fuzz::Fuzz;
use ruma::ServerName;
use serde_json::value::RawValue;

use crate::{
    Pdu,
    acl::Acl,
    auth::{allowed_by_auth_events, events_needed, state_needed},
    check::{KeyRing, check, keys_needed},
    json,
    laws::sample,
    names, redact, version,
};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn mutated_json_is_written_the_same_again_or_refused() {
    Fuzz::of(HERE, "json").run(|bytes| match json::object(bytes) {
        Ok(object) => {
            let text = json::canonical(&object);
            assert_eq!(json::object(text.as_bytes()).unwrap(), object);
            assert_eq!(serde_json::from_str::<ruma::CanonicalJsonObject>(&text).unwrap(), object);
            "read".to_owned()
        }
        Err(error) => error.to_string(),
    });
}

#[test]
fn a_mutated_event_is_one_in_every_version_or_an_error() {
    let versions: Vec<_> = version::known().iter().filter_map(version::rules).collect();
    let mut fuzz = Fuzz::of(HERE, "event").brief(500);
    for rules in &versions {
        fuzz = fuzz.with(sample(rules).2.json());
    }
    fuzz.run(|bytes| {
        let mut outcome = String::new();
        for rules in &versions {
            let pdu = match Pdu::parse(rules, bytes) {
                Ok(pdu) => pdu,
                Err(error) => {
                    outcome = error.to_string();
                    continue;
                }
            };
            assert!(pdu.json().len() <= 65_536);
            assert!(pdu.prev_events().len() <= 20 && pdu.auth_events().len() <= 10);
            assert_eq!(Pdu::parse(rules, pdu.json().as_bytes()).unwrap(), pdu);
            Pdu::restore(rules, pdu.event_id().to_owned(), pdu.json()).unwrap();
            if let Ok(redacted) = redact::event(rules, &pdu) {
                assert_eq!(redacted.event_id(), pdu.event_id());
                assert_eq!(redact::event(rules, &redacted).unwrap(), redacted);
            }
            let refused = allowed_by_auth_events(rules, &pdu, &[]).map_err(|error| error.to_string());
            outcome = format!("{} {refused:?}", pdu.kind());
            let _ = (events_needed(rules, &pdu), state_needed(rules, &pdu), keys_needed(rules, &pdu));
            assert!(check(rules, &pdu, &KeyRing::new(), &BTreeSet::new()).is_err(), "signed by nobody");
        }
        outcome
    });
}

#[test]
fn a_mutated_name_is_a_host_or_nothing() {
    Fuzz::of(HERE, "name").run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Some(name) = names::strict(&text) else { return "none".to_owned() };
        assert_eq!(name.as_str(), text);
        assert!(
            text.len() <= 255
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte))
        );
        format!("{} {:?}", name.host().len(), name.port().is_some())
    });
}

#[test]
fn a_mutated_access_list_answers() {
    let names = ["a.example", "evil.example", "xa.evil.example:8448", "1.2.3.4", "[::1]:80"];
    let names = names.map(|name| <&ServerName>::try_from(name).unwrap());
    Fuzz::of(HERE, "acl").run(|bytes| {
        let content =
            String::from_utf8(bytes.to_vec()).ok().and_then(|text| RawValue::from_string(text).ok());
        let Some(content) = content else { return "no JSON".to_owned() };
        let acl = Acl::new(&content);
        format!("{:?}", names.map(|name| acl.allows(name)))
    });
}
