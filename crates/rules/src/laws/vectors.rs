//! Test vectors of the specification, appendices, "Cryptographic test vectors" and "Canonical JSON".

use ruma::{room_version_rules::RoomVersionRules, server_name};

use crate::{
    build::{SigningKey, hash_and_sign},
    json,
    opened::Opened,
};

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
    let event = json::object(
        br#"{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,
            "signatures":{},"hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,
            "unsigned":{"age_ts":1000000}}"#,
    )
    .unwrap();
    let (mut opened, key) = (Opened::canonical(event), SigningKey::from_line(SEED).unwrap());
    hash_and_sign(&RoomVersionRules::V1, &mut opened, server_name!("domain"), &key).unwrap();
    let event = opened.object;
    let hash = event["hashes"].as_object().unwrap()["sha256"].as_str().unwrap();
    assert_eq!(hash, "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos");
    let signature =
        event["signatures"].as_object().unwrap()["domain"].as_object().unwrap()["ed25519:1"].as_str();
    assert_eq!(
        signature,
        Some("KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg")
    );
}
