//! Events on disk: the same JSON without the base64 and without the hash that follows from the rest.
//!
//! JSON text has no control characters. Here each stands for what follows it, so the text comes back byte for byte:
//! ids, hashes and signatures as they were before base64, which also lets the compression of the table find an id
//! again where the next event names it; and the content hash not at all, where it is the right one.

use std::ops::Range;

use base64::{
    Engine as _,
    engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{pack::Unpacker, tx::Error};

/// `$` and 32 bytes in URL-safe base64: an event id of room version 4 on.
const EVENT_ID: u8 = 1;
/// 32 bytes in base64: a hash.
const HASH: u8 = 2;
/// 64 bytes in base64: an Ed25519 signature.
const SIGNATURE: u8 = 3;
/// The content hash of the event, in base64 (server-server API, "Calculating the content hash for an event").
const CONTENT_HASH: u8 = 4;
/// Here begins what the content hash leaves out.
const LEFT_OUT: u8 = 5;
/// Here it ends.
const TAKEN_IN: u8 = 6;
/// Smaller bytes are none of the text's.
const FIRST_OF_TEXT: u8 = b' ';
/// Characters of 32 bytes in base64 without padding.
const HASH_TEXT: usize = 43;
/// Characters of 64 bytes.
const SIGNATURE_TEXT: usize = 86;

/// Packs an event's canonical JSON; `None` if it would not come back as it was.
pub(crate) fn pack(json: &str) -> Option<Vec<u8>> {
    if json.bytes().any(|byte| byte < FIRST_OF_TEXT) {
        return None;
    }
    let packed = packed(json, &Outside::of(json).unwrap_or_default());
    (unpack(&packed).ok()? == json).then_some(packed)
}

/// The JSON that was packed.
pub(crate) fn unpack(bytes: &[u8]) -> Result<String, Error> {
    let mut from = Unpacker::new(bytes, "event");
    let mut text = Vec::with_capacity(bytes.len() * 4 / 3 + 2 * HASH_TEXT);
    let (mut outside, mut begun, mut hash_at) = (Vec::new(), None, None);
    while !from.is_empty() {
        text.extend_from_slice(from.up_to(|byte| byte < FIRST_OF_TEXT));
        if from.is_empty() {
            break;
        }
        match from.byte()? {
            EVENT_ID => {
                text.push(b'$');
                write(&mut text, &URL_SAFE_NO_PAD, &from.fixed::<32>()?);
            }
            HASH => write(&mut text, &STANDARD_NO_PAD, &from.fixed::<32>()?),
            SIGNATURE => write(&mut text, &STANDARD_NO_PAD, &from.fixed::<64>()?),
            CONTENT_HASH => {
                hash_at = Some(text.len());
                text.resize(text.len() + HASH_TEXT, b'=');
            }
            LEFT_OUT => begun = Some(text.len()),
            TAKEN_IN => outside.push(begun.take().ok_or(from.damaged())?..text.len()),
            _ => return Err(from.damaged()),
        }
    }
    if let Some(at) = hash_at {
        let hash = STANDARD_NO_PAD.encode(hash_without(&text, &outside));
        text[at..at + HASH_TEXT].copy_from_slice(hash.as_bytes());
    }
    String::from_utf8(text).map_err(|_| from.damaged())
}

fn write(text: &mut Vec<u8>, base64: &GeneralPurpose, bytes: &[u8]) {
    let from = text.len();
    text.resize(from + (bytes.len() * 4).div_ceil(3), 0);
    base64.encode_slice(bytes, &mut text[from..]).expect("base64 takes four characters for three bytes");
}

/// The hash of a text, some of it left out.
fn hash_without(text: &[u8], outside: &[Range<usize>]) -> impl AsRef<[u8]> {
    let (mut hash, mut from) = (Context::new(&SHA256), 0);
    for range in outside {
        hash.update(&text[from..range.start]);
        from = range.end;
    }
    hash.update(&text[from..]);
    hash.finish()
}

fn packed(json: &str, outside: &Outside) -> Vec<u8> {
    let bytes = json.as_bytes();
    let mut packed = Vec::with_capacity(bytes.len());
    let (mut at, mut ranges) = (0, outside.ranges.iter().peekable());
    while at < bytes.len() {
        if ranges.peek().is_some_and(|range| range.start == at) {
            packed.push(LEFT_OUT);
        }
        let length = match marked(bytes, at) {
            Some((HASH, _)) if outside.hash_at == Some(at) => {
                packed.push(CONTENT_HASH);
                HASH_TEXT
            }
            Some((mark, value)) => {
                packed.push(mark);
                packed.extend_from_slice(&value);
                if mark == SIGNATURE { SIGNATURE_TEXT } else { HASH_TEXT + usize::from(mark == EVENT_ID) }
            }
            None => {
                packed.push(bytes[at]);
                1
            }
        };
        at += length;
        if ranges.next_if(|range| range.end == at).is_some() {
            packed.push(TAKEN_IN);
        }
    }
    packed
}

/// What begins here, right behind a quotation mark and up to the next one, and can be marked.
fn marked(bytes: &[u8], at: usize) -> Option<(u8, Vec<u8>)> {
    if at == 0 || bytes[at - 1] != b'"' {
        return None;
    }
    let text = |from: usize, length| {
        let end = from + length;
        (bytes.get(end) == Some(&b'"')).then(|| &bytes[from..end])
    };
    if bytes[at] == b'$' {
        return Some((EVENT_ID, URL_SAFE_NO_PAD.decode(text(at + 1, HASH_TEXT)?).ok()?));
    }
    let (mark, text) = match text(at, HASH_TEXT) {
        Some(text) => (HASH, text),
        None => (SIGNATURE, text(at, SIGNATURE_TEXT)?),
    };
    Some((mark, STANDARD_NO_PAD.decode(text).ok()?))
}

/// What the content hash leaves out, and where that hash stands if it is the right one.
#[derive(Default)]
struct Outside {
    ranges: Vec<Range<usize>>,
    hash_at: Option<usize>,
}

#[derive(Deserialize)]
struct LeftOut<'a> {
    #[serde(borrow)]
    hashes: &'a RawValue,
    #[serde(borrow)]
    signatures: Option<&'a RawValue>,
    #[serde(borrow)]
    unsigned: Option<&'a RawValue>,
}

impl Outside {
    fn of(json: &str) -> Option<Self> {
        let members: LeftOut<'_> = serde_json::from_str(json).ok()?;
        let LeftOut { signatures, unsigned, .. } = members;
        let hash = members.hashes.get().strip_prefix("{\"sha256\":\"")?.strip_suffix("\"}")?;
        let mut members = vec![member(json, "hashes", members.hashes)?];
        for (name, value) in [("signatures", signatures), ("unsigned", unsigned)] {
            if let Some(value) = value {
                members.push(member(json, name, value)?);
            }
        }
        let ranges = with_commas(json, members)?;
        let right = STANDARD_NO_PAD.encode(hash_without(json.as_bytes(), &ranges));
        (hash == right).then(|| Self { ranges, hash_at: offset(json, hash) })
    }
}

/// Where a member of an object stands, its name included.
fn member(json: &str, name: &str, value: &RawValue) -> Option<Range<usize>> {
    let (start, end) = (offset(json, value.get())?, offset(json, value.get())? + value.get().len());
    let start = start.checked_sub(name.len() + 3)?;
    (json.get(start..)?.starts_with(&format!("\"{name}\":"))).then_some(start..end)
}

/// The members with the comma that parts each from the others: what stands between them is one object again.
fn with_commas(json: &str, mut members: Vec<Range<usize>>) -> Option<Vec<Range<usize>>> {
    members.sort_by_key(|range| range.start);
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for mut member in members {
        let is_followed = *json.as_bytes().get(member.end)? == b',';
        member.end += usize::from(is_followed);
        match ranges.last_mut().filter(|last| last.end == member.start) {
            Some(last) => last.end = member.end,
            None => ranges.push(member),
        }
        if !is_followed && let Some(last) = ranges.last_mut() {
            // The last member of the object: the comma before it goes.
            last.start = last.start.checked_sub(1)?;
        }
    }
    Some(ranges)
}

/// Where a part of a text begins.
fn offset(json: &str, part: &str) -> Option<usize> {
    (part.as_ptr().addr()).checked_sub(json.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    use proptest::prelude::*;
    use ring::digest::{SHA256, digest};
    use serde_json::{Value, json};

    use super::{CONTENT_HASH, pack, unpack};

    /// Canonical JSON of an event, its content hash the right one.
    fn event(mut event: Value) -> String {
        let mut content = event.clone();
        for left_out in ["hashes", "signatures", "unsigned"] {
            content.as_object_mut().unwrap().remove(left_out);
        }
        let hash = STANDARD_NO_PAD.encode(digest(&SHA256, content.to_string().as_bytes()));
        event["hashes"] = json!({ "sha256": hash });
        event.to_string()
    }

    fn member() -> Value {
        let id =
            |byte: u8| format!("${}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([byte; 32]));
        json!({
            "auth_events": [id(1), id(2), id(3)],
            "content": { "displayname": "Zoë \"the\" \u{1} tester", "membership": "join" },
            "depth": 7,
            "origin_server_ts": 1_700_000_000_000_u64,
            "prev_events": [id(250)],
            "room_id": "!r:x.fr",
            "sender": "@a:x.fr",
            "signatures": { "x.fr": { "ed25519:1": STANDARD_NO_PAD.encode([7; 64]) } },
            "state_key": "@a:x.fr",
            "type": "m.room.member",
        })
    }

    fn is_without_hash(packed: &[u8]) -> bool {
        let hash = [b"\"sha256\":\"", &[CONTENT_HASH][..]].concat();
        packed.windows(hash.len()).any(|window| window == hash)
    }

    #[test]
    fn an_event_comes_back_and_its_hash_is_not_stored() {
        for extra in [json!(null), json!({ "age": 3 })] {
            let mut value = member();
            if !extra.is_null() {
                value["unsigned"] = extra;
            }
            let json = event(value);
            let packed = pack(&json).unwrap();
            assert_eq!(unpack(&packed).unwrap(), json);
            assert!(is_without_hash(&packed), "{json}");
            // Four ids, a signature, the hash, less what marks what the hash leaves out.
            let marks = 2 * json.matches("\"unsigned\"").count() + 4;
            assert_eq!(json.len() - packed.len(), 4 * 11 + 21 + 42 - marks);
        }
    }

    #[test]
    fn what_the_hash_leaves_out_may_stand_anywhere() {
        for rest in [json!({}), json!({ "a": 1 }), json!({ "i": 1 }), json!({ "a": 1, "z": 2 })] {
            for left_out in [&[][..], &["signatures"], &["unsigned"], &["signatures", "unsigned"]] {
                let mut value = rest.clone();
                for name in left_out {
                    value[name] = json!({});
                }
                let json = event(value);
                assert_eq!(unpack(&pack(&json).unwrap()).unwrap(), json);
                // An object of nothing else has no comma to take away.
                let all_left_out = rest.as_object().unwrap().is_empty();
                assert!(all_left_out || is_without_hash(&pack(&json).unwrap()), "{json}");
            }
        }
    }

    #[test]
    fn a_hash_that_is_not_the_right_one_is_kept() {
        let right = event(member());
        for wrong in [
            right.replace("\"depth\":7", "\"depth\":8"),
            right.replace("\"hashes\":{", "\"hashes\":{\"md5\":\"x\","),
            right.replace("\"hashes\"", "\"hushes\""),
            right.replace("\"join\"", "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\""),
        ] {
            assert_ne!(wrong, right);
            let packed = pack(&wrong).unwrap();
            assert_eq!(unpack(&packed).unwrap(), wrong);
            assert!(!is_without_hash(&packed));
        }
        // Of two members of one name other servers may take the other one.
        let twice = right.replace("\"room_id\"", "\"depth\":9,\"room_id\"");
        assert_eq!(unpack(&pack(&twice).unwrap()).unwrap(), twice);
    }

    #[test]
    fn what_is_not_json_is_left_alone() {
        assert_eq!(pack("{\"a\":\"\u{4}\"}"), None);
        assert_eq!(unpack(&pack("").unwrap()).unwrap(), "");
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "[\"$A-Za-z0-9+/_{}:,é-]{0,200}", id: [u8; 32], signature: [u8; 32]) {
            let id = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id);
            let signature = STANDARD_NO_PAD.encode([signature, signature].concat());
            let text = format!("{text}\"${id}\"{text}\"{signature}\"\"{id}\"{text}");
            let packed = pack(&text).unwrap();
            prop_assert_eq!(unpack(&packed).unwrap(), text);
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_panic(bytes: Vec<u8>, marks in prop::collection::vec(0u8..8, 0..40)) {
            let _ = unpack(&bytes);
            let _ = unpack(&marks);
        }
    }
}
