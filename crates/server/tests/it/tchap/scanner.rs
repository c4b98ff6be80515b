//! The content scanner.

use std::sync::Arc;

use aes::{
    Aes256,
    cipher::{BlockModeEncrypt, KeyIvInit, StreamCipher, block_padding::Pkcs7},
};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use chappe_world::FakeNet;
use ring::{
    digest::{SHA256, digest},
    hkdf, hmac,
};
use serde_json::{Value, json};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{
    clamd::{Clamd, VIRUS},
    office::{Agent, Answer, Office},
};

const PROXY: &str = "/_matrix/media_proxy/unstable";
/// A picture of one pixel.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\x00\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";
const SCALED: &str = "width=10&height=10&method=scale";

/// The scanner's own form of an error, beside that of Matrix.
#[track_caller]
fn refused(answer: Answer, status: u16, reason: &str) {
    assert_eq!(answer.json["reason"], reason, "{}", answer.json);
    assert!(answer.json["info"].is_string(), "{}", answer.json);
    answer.refused(status, reason);
}

/// A file as clients encrypt it; the `file` of a message.
async fn encrypted(agent: &Agent<'_>, bytes: &[u8]) -> (Value, Vec<u8>) {
    let mut sent = bytes.to_vec();
    ctr::Ctr128BE::<Aes256>::new(&[7; 32].into(), &[0; 16].into()).apply_keystream(&mut sent);
    let place = agent.upload(&sent).await;
    let file = json!({
        "v": "v2", "url": format!("mxc://{place}"), "iv": STANDARD_NO_PAD.encode([0; 16]),
        "key": { "kty": "oct", "key_ops": ["encrypt", "decrypt"], "alg": "A256CTR", "ext": true,
            "k": STANDARD_NO_PAD.encode([7; 32]) },
        "hashes": { "sha256": STANDARD_NO_PAD.encode(digest(&SHA256, &sent)) },
    });
    (file, sent)
}

/// Encrypts as libolm's `PkEncryption` does, for a key in Base64.
fn sealed(key: &Value, content: &Value) -> Value {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            80
        }
    }
    let key: [u8; 32] = STANDARD_NO_PAD.decode(key.as_str().unwrap()).unwrap().try_into().unwrap();
    let own = StaticSecret::from([3; 32]);
    let mut keys = [0; 80];
    let extracted =
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(own.diffie_hellman(&PublicKey::from(key)).as_bytes());
    extracted.expand(&[], Length).unwrap().fill(&mut keys).unwrap();
    let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&keys[..32], &keys[64..]).unwrap();
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &keys[32..64]), b"");
    json!({ "encrypted_body": {
        "ciphertext": STANDARD_NO_PAD.encode(cipher.encrypt_padded_vec::<Pkcs7>(content.to_string().as_bytes())),
        "mac": STANDARD_NO_PAD.encode(&mac.as_ref()[..8]),
        "ephemeral": STANDARD_NO_PAD.encode(PublicKey::from(&own)),
    } })
}

#[tokio::test]
async fn row_83_what_is_not_clean_is_refused_and_what_is_comes_through() {
    let (clamd, net) = (Clamd::start().await, FakeNet::new());
    let a = Office::on(&net, "a.test", &clamd.section("")).await;
    let b = Office::on(&net, "b.test", "").await;
    let (alice, bob) = (a.agent("alice").await, b.agent("bob").await);
    let (clean, virus) = (alice.upload(GIF).await, alice.upload(VIRUS).await);
    let remote = (bob.upload(b"harmless").await, bob.upload(VIRUS).await);
    for _ in 0..2 {
        let got = alice.get(&format!("{PROXY}/download/{clean}")).await;
        assert_eq!((got.status.as_u16(), &*got.bytes), (200, GIF));
        assert_eq!(got.headers["x-content-type-options"], "nosniff");
        assert_eq!(alice.get(&format!("{PROXY}/thumbnail/{clean}?{SCALED}")).await.bytes, GIF);
        assert_eq!(alice.get(&format!("{PROXY}/scan/{clean}")).await.ok()["clean"], true);
        assert_eq!(alice.get(&format!("{PROXY}/download/{}", remote.0)).await.bytes, b"harmless");
        for dirty in [&virus, &remote.1] {
            refused(alice.get(&format!("{PROXY}/download/{dirty}")).await, 403, "MCS_MEDIA_NOT_CLEAN");
            let thumbnail = alice.get(&format!("{PROXY}/thumbnail/{dirty}?{SCALED}")).await;
            refused(thumbnail, 403, "MCS_MEDIA_NOT_CLEAN");
            let said = alice.get(&format!("{PROXY}/scan/{dirty}")).await.ok();
            assert_eq!((&said["clean"], said["info"].is_string()), (&json!(false), true));
        }
    }
    // Nobody is kept from other doors unless the configuration says so.
    assert_eq!(alice.get(&format!("/_matrix/client/v1/media/download/{virus}")).await.bytes, VIRUS);
}

#[tokio::test]
async fn row_84_encrypted_files_are_scanned_in_clear() {
    let clamd = Clamd::start().await;
    let a = Office::alone(&clamd.section("")).await;
    let alice = a.agent("alice").await;
    let key = a.call("", "GET", &format!("{PROXY}/public_key"), Value::Null).await.ok()["public_key"].clone();
    let (clean, sent) = encrypted(&alice, b"harmless").await;
    let (virus, _) = encrypted(&alice, VIRUS).await;
    let both = |file: &Value| [json!({ "file": file }), sealed(&key, &json!({ "file": file }))];
    for body in both(&clean) {
        let got = alice.post(&format!("{PROXY}/download_encrypted"), body.clone()).await;
        assert_eq!((got.status.as_u16(), &got.bytes), (200, &sent), "as it was uploaded");
        assert_eq!(alice.post(&format!("{PROXY}/scan_encrypted"), body).await.ok()["clean"], true);
    }
    for body in both(&virus) {
        let got = alice.post(&format!("{PROXY}/download_encrypted"), body.clone()).await;
        refused(got, 403, "MCS_MEDIA_NOT_CLEAN");
        assert_eq!(alice.post(&format!("{PROXY}/scan_encrypted"), body).await.ok()["clean"], false);
    }
}

#[tokio::test]
async fn row_84_bad_bodies_get_their_own_errors() {
    let clamd = Clamd::start().await;
    let a = Office::alone(&clamd.section("")).await;
    let alice = a.agent("alice").await;
    let (file, _) = encrypted(&alice, b"harmless").await;
    let ask = async |body: Value| alice.post(&format!("{PROXY}/download_encrypted"), body).await;
    for wrong in [json!({}), json!({ "file": { "url": file["url"] } }), json!({ "encrypted_body": {} })] {
        refused(ask(wrong).await, 400, "MCS_MALFORMED_JSON");
    }
    let mut wrong = file.clone();
    wrong["hashes"]["sha256"] = json!(STANDARD_NO_PAD.encode([0; 32]));
    refused(ask(json!({ "file": wrong })).await, 400, "MCS_MEDIA_FAILED_TO_DECRYPT");
    let mut absent = file.clone();
    absent["url"] = json!("mxc://a.test/absent");
    refused(ask(json!({ "file": absent })).await, 404, "M_NOT_FOUND");
    absent["url"] = json!("mxc://nowhere.test/absent");
    refused(ask(json!({ "file": absent })).await, 502, "MCS_MEDIA_REQUEST_FAILED");
    drop(clamd);
    refused(ask(json!({ "file": file })).await, 500, "M_UNKNOWN");
}

#[tokio::test]
async fn row_85_what_was_encrypted_for_another_key_is_asked_for_again() {
    let (clamd, net) = (Clamd::start().await, FakeNet::new());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let key = async |office: &Office| {
        let said = office.call("", "GET", &format!("{PROXY}/public_key"), Value::Null).await.ok();
        said["public_key"].clone()
    };
    let before = Office::placed(folder.clone(), &net, "a.test", &clamd.section("")).await;
    let stale = key(&before).await;
    drop(before);
    let same = Office::placed(folder.clone(), &net, "a.test", &clamd.section("")).await;
    assert_eq!(key(&same).await, stale, "a restart keeps the key");
    drop(same);
    std::fs::remove_file(folder.path().join("scanner.key")).unwrap();
    let a = Office::placed(folder, &net, "a.test", &clamd.section("")).await;
    let alice = a.agent("alice").await;
    let (file, sent) = encrypted(&alice, b"harmless").await;
    let ask = async |key: &Value| {
        alice.post(&format!("{PROXY}/download_encrypted"), sealed(key, &json!({ "file": file }))).await
    };
    refused(ask(&stale).await, 403, "MCS_BAD_DECRYPTION");
    assert_eq!(ask(&key(&a).await).await.bytes, sent);
}

#[tokio::test]
async fn row_86_a_token_in_the_header_is_needed() {
    let clamd = Clamd::start().await;
    let a = Office::alone(&format!("[client]\ntokens_in_query = true\n{}", clamd.section(""))).await;
    let alice = a.agent("alice").await;
    let place = alice.upload(b"harmless").await;
    let (file, _) = encrypted(&alice, b"harmless").await;
    let body = || json!({ "file": file });
    let asked = [
        ("GET", format!("download/{place}"), Value::Null),
        ("GET", format!("thumbnail/{place}?{SCALED}"), Value::Null),
        ("GET", format!("scan/{place}"), Value::Null),
        ("POST", "download_encrypted".to_owned(), body()),
        ("POST", "scan_encrypted".to_owned(), body()),
    ];
    for (method, path, body) in asked {
        let path = format!("{PROXY}/{path}");
        refused(a.call("", method, &path, body.clone()).await, 404, "M_NOT_FOUND");
        refused(a.call("stranger", method, &path, body.clone()).await, 401, "M_UNKNOWN_TOKEN");
        let mark = if path.contains('?') { '&' } else { '?' };
        let queried = format!("{path}{mark}access_token={}", alice.token);
        refused(a.call("", method, &queried, body).await, 404, "M_NOT_FOUND");
    }
    assert_eq!(alice.get(&format!("{PROXY}/download/{place}")).await.bytes, b"harmless");
}

#[tokio::test]
async fn row_87_kinds_of_files_are_told_by_what_is_in_them() {
    let clamd = Clamd::start().await;
    let blocked = r#"blocked_mimetypes = ["application/vnd.microsoft.portable-executable"]"#;
    let a = Office::alone(&clamd.section(blocked)).await;
    let alice = a.agent("alice").await;
    let exe = b"MZ\x90\0\x03\0\0\0\x04\0\0\0";
    let place = alice.upload(exe).await;
    refused(alice.get(&format!("{PROXY}/download/{place}")).await, 403, "MCS_MIME_TYPE_FORBIDDEN");
    assert_eq!(alice.get(&format!("{PROXY}/scan/{place}")).await.ok()["clean"], false);
    let (file, _) = encrypted(&alice, exe).await;
    let got = alice.post(&format!("{PROXY}/download_encrypted"), json!({ "file": file })).await;
    refused(got, 403, "MCS_MIME_TYPE_FORBIDDEN");
    let clean = alice.upload(GIF).await;
    assert_eq!(alice.get(&format!("{PROXY}/download/{clean}")).await.bytes, GIF);
}

#[tokio::test]
async fn where_it_is_enforced_nobody_gets_around_the_scanner() {
    let (clamd, net) = (Clamd::start().await, FakeNet::new());
    let a = Office::on(&net, "a.test", &clamd.section("enforce = true")).await;
    let b = Office::on(&net, "b.test", "").await;
    let (alice, bob) = (a.agent("alice").await, b.agent("bob").await);
    let (clean, virus) = (alice.upload(GIF).await, alice.upload(VIRUS).await);
    let remote = bob.upload(VIRUS).await;
    let media = "/_matrix/client/v1/media";
    for dirty in [&virus, &remote] {
        for path in [format!("download/{dirty}"), format!("download/{dirty}/x.txt")] {
            alice.get(&format!("{media}/{path}")).await.refused(403, "MCS_MEDIA_NOT_CLEAN");
        }
        let thumbnail = alice.get(&format!("{media}/thumbnail/{dirty}?{SCALED}")).await;
        thumbnail.refused(403, "MCS_MEDIA_NOT_CLEAN");
    }
    assert_eq!(alice.get(&format!("{media}/download/{clean}")).await.bytes, GIF);
    assert_eq!(bob.get(&format!("{media}/download/{clean}")).await.bytes, GIF);
    bob.get(&format!("{media}/download/{virus}")).await.refused(404, "M_NOT_FOUND");
    // What is encrypted cannot be known here, and is known where it is asked for with its key.
    let (file, sent) = encrypted(&alice, VIRUS).await;
    let place = file["url"].as_str().unwrap().trim_start_matches("mxc://").to_owned();
    assert_eq!(alice.get(&format!("{media}/download/{place}")).await.bytes, sent);
    let got = alice.post(&format!("{PROXY}/download_encrypted"), json!({ "file": file })).await;
    refused(got, 403, "MCS_MEDIA_NOT_CLEAN");
    drop(clamd);
    assert_eq!(alice.get(&format!("{media}/download/{clean}")).await.bytes, GIF, "known by now");
    let late = alice.upload(b"nobody looks at this").await;
    alice.get(&format!("{media}/download/{late}")).await.refused(503, "M_UNKNOWN");
}

#[tokio::test]
async fn what_has_to_be_scanned_is_counted_by_user_at_every_door() {
    let clamd = Clamd::start().await;
    let rate = "\n[client.rates]\nscan = { per_second = 0.001, burst = 2 }";
    let a = Office::alone(&clamd.section(&format!("enforce = true{rate}"))).await;
    let (alice, bob) = (a.agent("alice").await, a.agent("bob").await);
    let mut files = Vec::new();
    for text in ["one", "two", "three"] {
        files.push(alice.upload(text.as_bytes()).await);
    }
    let media = "/_matrix/client/v1/media";
    alice.get(&format!("{media}/download/{}", files[0])).await.ok();
    assert_eq!(alice.get(&format!("{PROXY}/scan/{}", files[1])).await.ok()["clean"], true);
    for path in [
        format!("{media}/download/{}", files[2]),
        format!("{media}/download/{}/x.txt", files[2]),
        format!("{media}/thumbnail/{}?{SCALED}", files[2]),
    ] {
        alice.get(&path).await.refused(429, "M_LIMIT_EXCEEDED");
    }
    assert_eq!(alice.get(&format!("{PROXY}/download/{}", files[2])).await.status, 429);
    // What is known costs nothing, whoever had it scanned.
    alice.get(&format!("{media}/download/{}", files[1])).await.ok();
    bob.get(&format!("{media}/download/{}", files[2])).await.ok();
    alice.get(&format!("{media}/download/{}", files[2])).await.ok();
}

#[tokio::test]
async fn without_anything_that_scans_there_is_no_scanner() {
    let a = Office::alone("").await;
    let alice = a.agent("alice").await;
    let place = alice.upload(b"harmless").await;
    for path in [format!("download/{place}"), format!("scan/{place}"), "public_key".to_owned()] {
        refused(alice.get(&format!("{PROXY}/{path}")).await, 404, "M_UNRECOGNIZED");
    }
    let got = alice.post(&format!("{PROXY}/download_encrypted"), json!({})).await;
    refused(got, 404, "M_UNRECOGNIZED");
}
