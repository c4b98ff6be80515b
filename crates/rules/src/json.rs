//! Strict reading of canonical JSON: what a lax parser would let through is refused here.

use std::fmt;

use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{Error, opened::Opened, tree};

/// Levels of nesting that `serde_json` reads, and so whoever uses it.
const READABLE: usize = 127;
/// Levels of nesting in what is told to others inside of more JSON.
const TOLD: usize = 100;
/// More levels of nesting than a server can write: Python's own reader ends at some thousands.
const WRITABLE: usize = 100_000;

/// Reads one JSON object that must be expressible as canonical JSON.
///
/// Refused: bytes that are not UTF-8, a byte order mark, trailing data, duplicate keys, numbers that are not
/// integers within ±(2^53 − 1) (so `1.0`, `1e3` and `-0` too), lone surrogates, nesting deeper than 128.
///
/// Specification: appendices, "Canonical JSON".
pub fn object(bytes: &[u8]) -> Result<CanonicalJsonObject, Error> {
    match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(CanonicalJsonValue::Object(object))) => Ok(object),
        Ok(_) => Err(Error::Malformed("not a JSON object".to_owned())),
        Err(error) => Err(Error::Malformed(error.to_string())),
    }
}

/// Reads an event as strictly as [`object`], but for its `unsigned`: that is left out, and so may be any JSON.
pub(crate) fn event(bytes: &[u8]) -> Result<CanonicalJsonObject, Error> {
    // Of what is skipped `serde_json` does not see whether it is UTF-8.
    let text = str::from_utf8(bytes).map_err(|error| Error::Malformed(error.to_string()))?;
    let read = serde_json::from_str::<Event>(text).map_err(|error| Error::Malformed(error.to_string()))?;
    Ok(read.0)
}

struct Event(CanonicalJsonObject);

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor).map(Self)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = CanonicalJsonObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = CanonicalJsonObject::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = if key == "unsigned" {
                map.next_value::<IgnoredAny>()?;
                CanonicalJsonValue::Null
            } else {
                map.next_value::<Strict>()?.0
            };
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        object.remove("unsigned");
        Ok(object)
    }
}

struct Strict(CanonicalJsonValue);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = CanonicalJsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("canonical JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Int::try_from(value).map(CanonicalJsonValue::Integer).map_err(|_| E::custom("integer out of range"))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Int::try_from(value).map(CanonicalJsonValue::Integer).map_err(|_| E::custom("integer out of range"))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(E::custom("number is not an integer"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::String(value))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(CanonicalJsonValue::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(CanonicalJsonValue::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = CanonicalJsonObject::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(CanonicalJsonValue::Object(object))
    }
}

/// The canonical bytes of an object, as text.
pub fn canonical(object: &CanonicalJsonObject) -> String {
    serde_json::to_string(object).expect("canonical JSON has string keys and plain values")
}

/// The text of a JSON value that servers sign when it is the body of a request: canonical JSON, and where a number is none
/// of canonical JSON, as Python writes it. Of a key that comes twice in an object the last counts.
///
/// Refused: what is no JSON, nesting deeper than any server writes it, numbers that no double comes near.
pub fn as_servers_write(bytes: &[u8]) -> Result<String, Error> {
    tree::sorted(bytes, WRITABLE)
}

/// Whether an object can be told to clients and servers inside of other JSON, as it is: strict as [`object`] but for
/// numbers, and not so deep that a parser which is used up at 127 would refuse all that it comes with.
pub fn check_told(bytes: &[u8]) -> Result<(), Error> {
    nearest(bytes)?;
    if tree::is_deeper(bytes, TOLD) {
        return Err(Error::Malformed("nested too deep".to_owned()));
    }
    Ok(())
}

/// Whether this server's own parsers read a text, as far as nesting is concerned.
pub fn is_readable(bytes: &[u8]) -> bool {
    !tree::is_deeper(bytes, READABLE)
}

/// Reads an object as strictly as [`object`], but for numbers: of those that canonical JSON does not have, the nearest
/// integers that it does have.
pub fn nearest(bytes: &[u8]) -> Result<CanonicalJsonObject, Error> {
    Opened::read_any(bytes)?.nearest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::{as_servers_write, canonical, check_told, event, is_readable, nearest, object};

    #[test]
    fn hostile_json_is_refused() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
        for text in [
            r#"{"a":9007199254740992}"#,
            r#"{"a":-9007199254740992}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":-0}"#,
            r#"{"a":NaN}"#,
            r#"{"a":Infinity}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":"\ud800"}"#,
            "\u{feff}{}",
            r"{} {}",
            r"[]",
            "",
            &deep,
        ] {
            assert!(object(text.as_bytes()).is_err(), "{}", &text[..text.len().min(40)]);
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn an_event_is_strict_but_for_what_is_unsigned() {
        for unsigned in
            ["1.5", "1e999", "null", r#"{"a":{"unsigned":-0}}"#, r#"{"a":1,"a":2}"#, r#""\ud800""#]
        {
            let read = event(format!(r#"{{"b":2,"unsigned":{unsigned},"a":1}}"#).as_bytes()).unwrap();
            assert_eq!(canonical(&read), r#"{"a":1,"b":2}"#);
        }
        for text in [
            r#"{"a":1.5,"unsigned":1.5}"#,
            r#"{"a":-0}"#,
            r#"{"a":{"unsigned":1.5}}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"unsigned":1,"unsigned":1}"#,
            r#"{"unsigned":01}"#,
            r#"{"unsigned":}"#,
            r#"{"unsigned":1} {}"#,
            "\u{feff}{}",
            "[]",
            "",
        ] {
            assert!(event(text.as_bytes()).is_err(), "{text}");
        }
        assert!(event(b"{\"unsigned\":\"\xff\"}").is_err());
    }

    #[test]
    fn canonical_form_sorts_and_shortens() {
        let read =
            object(r#"{ "b": "\u65e5", "a": [1, -9007199254740991, null, true] }"#.as_bytes()).unwrap();
        assert_eq!(canonical(&read), r#"{"a":[1,-9007199254740991,null,true],"b":"日"}"#);
    }

    #[test]
    fn bodies_are_written_as_servers_sign_them() {
        for (read, written) in [
            (r#"{ "b": "\u65e5", "a": -1 }"#, r#"{"a":-1,"b":"日"}"#),
            (
                r#"{"b":[1.50,1E22,0.00001],"a":{"y":2,"x":18446744073709551617}}"#,
                r#"{"a":{"x":18446744073709551617,"y":2},"b":[1.5,1e+22,1e-05]}"#,
            ),
            (r#"{"a":0.1,"b":{"1.5":"2.5\"3"},"a":-0}"#, r#"{"a":0,"b":{"1.5":"2.5\"3"}}"#),
            (
                r#"{"a":1.5,"b":{"$serde_json::private::RawValue":"[0]"}}"#,
                r#"{"a":1.5,"b":{"$serde_json::private::RawValue":"[0]"}}"#,
            ),
            ("[ 1.0, null ]", "[1.0,null]"),
            ("2.5", "2.5"),
            (r#""x""#, r#""x""#),
        ] {
            assert_eq!(as_servers_write(read.as_bytes()).unwrap(), written, "{read}");
        }
        let long = format!(r#"{{"a":-1{}}}"#, "0".repeat(400));
        assert_eq!(as_servers_write(long.as_bytes()).unwrap(), long);
        let deep = |levels: usize| format!("{}1.5{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(as_servers_write(deep(100_000).as_bytes()).unwrap(), deep(100_000));
        let deep = deep(100_001);
        for text in [
            "",
            "{",
            "[",
            "[1 2]",
            "[1,]",
            "[,1]",
            "[}",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r"{1:2}",
            "tru",
            "truefalse",
            "\"a",
            "\"a\u{1}\"",
            "1 2",
            "-",
            r#"{"a":1e999}"#,
            r#"{"a":01}"#,
            r#"{"a":--1}"#,
            r#"{"a":1.5} {}"#,
            r#"{"a":"\ud800"}"#,
            &deep,
        ] {
            assert!(as_servers_write(text.as_bytes()).is_err(), "{}", &text[..text.len().min(40)]);
        }
        assert!(as_servers_write(b"{\"a\":\"\xff\"}").is_err());
        let many = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        assert!(as_servers_write(many(1_000_000).as_bytes()).is_ok());
        assert!(as_servers_write(many(1_000_001).as_bytes()).is_err());
    }

    #[test]
    fn keys_are_sorted_as_they_are_read_and_the_last_of_two_counts() {
        let text = r#"{"\u00e9":1,"b":[{"z":1,"\n":2,"z":3}],"!":4,"\u0062":{"c":5}}"#;
        let written = r#"{"!":4,"b":{"c":5},"é":1}"#;
        assert_eq!(as_servers_write(text.as_bytes()).unwrap(), written);
        let text = r#"[{"z":1,"\n":2,"z":3}]"#;
        assert_eq!(as_servers_write(text.as_bytes()).unwrap(), r#"[{"\n":2,"z":3}]"#);
    }

    proptest! {
        #[test]
        fn what_is_canonical_stays_as_it_is(keys in prop::collection::vec(".{0,5}", 0..5), value in ".{0,9}", n in -9i32..9) {
            let inner: Map<String, Value> = keys.iter().map(|key| (key.clone(), json!([value, n, null, {}]))).collect();
            let outer = json!({ "x": inner, value: [[], inner, true] }).to_string();
            let read = object(outer.as_bytes()).unwrap();
            prop_assert_eq!(as_servers_write(outer.as_bytes()).unwrap(), canonical(&read));
        }
    }

    #[test]
    fn what_is_told_leaves_room_for_what_it_is_told_in() {
        let deep = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        for text in ["{}", r#"{"a":1.5,"b":"]["}"#, &deep(99)] {
            assert!(check_told(text.as_bytes()).is_ok(), "{text}");
        }
        for text in [
            "[]",
            "1",
            "",
            r#"{"a":1,"a":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e999}"#,
            &deep(100),
            &deep(5_000),
        ] {
            assert!(check_told(text.as_bytes()).is_err(), "{text}");
        }
        assert!(is_readable(deep(126).as_bytes()) && !is_readable(deep(127).as_bytes()));
        assert!(is_readable(br#"["[[[\"[[[", []]"#));
    }

    #[test]
    fn the_nearest_object_is_strict_but_for_numbers() {
        let read = nearest(br#"{"b":1e300,"a":[1.9,7]}"#).unwrap();
        assert_eq!(canonical(&read), r#"{"a":[1,7],"b":9007199254740991}"#);
        for text in [r#"{"a":1.5,"a":1.5}"#, r#"{"a":1e999}"#, "[1.5]"] {
            assert!(nearest(text.as_bytes()).is_err(), "{text}");
        }
    }
}
