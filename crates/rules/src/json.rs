//! Strict reading of canonical JSON: what a lax parser would let through is refused here.

use std::fmt;

use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::{Error, numbers, opened::Opened};

/// Reads one JSON object that must be expressible as canonical JSON.
///
/// Refused: bytes that are not UTF-8, a byte order mark, trailing data, duplicate keys, numbers that are not
/// integers within ±(2^53 − 1) (so `1.0`, `1e3` and `-0` too), lone surrogates, nesting deeper than 128.
///
/// Specification: appendices, "Canonical JSON".
pub fn object(bytes: &[u8]) -> Result<CanonicalJsonObject, Error> {
    match serde_json::from_slice::<Strict<false>>(bytes) {
        Ok(Strict(CanonicalJsonValue::Object(object))) => Ok(object),
        Ok(_) => Err(Error::Malformed("not a JSON object".to_owned())),
        Err(error) => Err(Error::Malformed(error.to_string())),
    }
}

/// Whether of a key that comes twice the last counts, or the text is refused.
struct Strict<const LAST: bool>(CanonicalJsonValue);

impl<'de, const LAST: bool> Deserialize<'de> for Strict<LAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor::<LAST>).map(Self)
    }
}

struct StrictVisitor<const LAST: bool>;

impl<'de, const LAST: bool> Visitor<'de> for StrictVisitor<LAST> {
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
        while let Some(Strict::<LAST>(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(CanonicalJsonValue::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = CanonicalJsonObject::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, Strict<LAST>>()? {
            if object.insert(key, value).is_some() && !LAST {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(CanonicalJsonValue::Object(object))
    }
}

/// Reads any value; of a key that comes twice in an object the last counts.
pub(crate) fn last_wins(text: &str) -> Result<CanonicalJsonValue, Error> {
    let read: Result<Strict<true>, _> = serde_json::from_str(text);
    read.map(|Strict(value)| value).map_err(|error| Error::Malformed(error.to_string()))
}

/// The canonical bytes of an object, as text.
pub fn canonical(object: &CanonicalJsonObject) -> String {
    serde_json::to_string(object).expect("canonical JSON has string keys and plain values")
}

/// The text of a JSON value that servers sign when it is the body of a request: canonical JSON, and where a number is none
/// of canonical JSON, as Python writes it. Of a key that comes twice in an object the last counts.
///
/// Refused: what is no JSON, nesting deeper than 128, numbers that no double comes near.
pub fn as_servers_write(bytes: &[u8]) -> Result<String, Error> {
    object(bytes).map(|object| canonical(&object)).or_else(|_| numbers::text_as_python_writes(bytes))
}

/// Reads an object as strictly as [`object`], but for numbers: of those that canonical JSON does not have, the nearest
/// integers that it does have.
pub fn nearest(bytes: &[u8]) -> Result<CanonicalJsonObject, Error> {
    Opened::read_any(bytes)?.nearest()
}

#[cfg(test)]
mod tests {
    use super::{as_servers_write, canonical, nearest, object};

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
        let deep = format!("{}1.5{}", "[".repeat(10_000), "]".repeat(10_000));
        for text in [
            "",
            "{",
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
