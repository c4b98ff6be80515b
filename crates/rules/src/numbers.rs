//! Numbers that canonical JSON does not have, and events of room versions 1 to 5 do.
//!
//! Servers hash, sign and send such a number as Python writes it: an integer with all its digits, any other as the shortest
//! text that is read as the same double. No type of JSON here holds that. So the numbers of a text are put into a list, and
//! in the object that is read each stands as its place there, which whatever keeps or drops members of an object carries along.

use ruma::{CanonicalJsonObject, Int};

use crate::{Error, json};

/// All numbers of a JSON text, as Python writes them.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(Vec<String>);

impl Numbers {
    /// Reads an object as strictly as [`json::object`], but for the numbers: any that a double can come near. Each
    /// integer of the object is the place of a number in the list.
    pub(crate) fn take_out(bytes: &[u8]) -> Result<(CanonicalJsonObject, Self), Error> {
        let text = str::from_utf8(bytes).map_err(|error| Error::Malformed(error.to_string()))?;
        let mut numbers = Vec::new();
        let places = each_number(text, |number| {
            double_of(number)?;
            numbers.push(as_python_writes(number)?);
            Ok((numbers.len() - 1).to_string())
        })?;
        Ok((json::object(places.as_bytes())?, Self(numbers)))
    }

    /// The canonical text, with its numbers.
    pub(crate) fn put_back(&self, object: &CanonicalJsonObject) -> Result<String, Error> {
        each_number(&json::canonical(object), |place| self.at(place).map(str::to_owned))
    }

    /// The object with the integers that come nearest to its numbers, what is behind the point cut off.
    pub(crate) fn nearest(&self, object: &CanonicalJsonObject) -> Result<CanonicalJsonObject, Error> {
        let text = each_number(&json::canonical(object), |place| Ok(nearest(self.at(place)?).to_string()))?;
        json::object(text.as_bytes())
    }

    fn at(&self, place: &str) -> Result<&str, Error> {
        let number = place.parse().ok().and_then(|place: usize| self.0.get(place));
        number.map(String::as_str).ok_or_else(|| Error::Malformed("a number of another text".to_owned()))
    }
}

/// The text with something else for each number. What is no JSON stays none.
fn each_number(text: &str, mut other: impl FnMut(&str) -> Result<String, Error>) -> Result<String, Error> {
    let (mut written, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.bytes().next() {
        let is_number = is_start(first);
        let length = match first {
            b'"' => string_length(rest),
            _ if is_number => length_until(rest, |byte| !is_start(byte) && !b"+.eE".contains(&byte)),
            _ => length_until(rest, |byte| byte == b'"' || is_start(byte)),
        };
        let (part, behind) = rest.split_at(length);
        if is_number {
            written.push_str(&other(part)?);
        } else {
            written.push_str(part);
        }
        rest = behind;
    }
    Ok(written)
}

pub(crate) fn is_start(byte: u8) -> bool {
    byte == b'-' || byte.is_ascii_digit()
}

/// How far a text goes until there comes an ASCII character of which `ends` holds.
pub(crate) fn length_until(text: &str, ends: impl FnMut(u8) -> bool) -> usize {
    text.bytes().position(ends).unwrap_or(text.len())
}

/// How long the string is that begins here, its quotation marks included.
pub(crate) fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |end| end + 2)
}

fn double_of(number: &str) -> Result<f64, Error> {
    serde_json::from_str(number).map_err(|error| Error::Malformed(error.to_string()))
}

/// Whether a text is an integer as JSON writes them, however long.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_one = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_one && (digits == "0" || !digits.starts_with('0'))
}

pub(crate) fn as_python_writes(number: &str) -> Result<String, Error> {
    if is_integer(number) {
        return Ok(if number == "-0" { "0" } else { number }.to_owned());
    }
    let double = double_of(number)?;
    // That of `serde_json` may be the neighbour of the right one.
    let text = format!("{:?}", number.parse().unwrap_or(double));
    let Some((digits, exponent)) = text.split_once('e') else { return Ok(text) };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    Ok(format!("{digits}e{sign}{exponent:0>2}"))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a double cuts off and saturates, as is meant here"
)]
fn nearest(number: &str) -> Int {
    let cut = || number.parse().map_or(0, |double: f64| double as i64);
    Int::new_saturating(number.parse().unwrap_or_else(|_| cut()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Numbers;
    use crate::json;

    fn again(text: &str) -> String {
        let (object, numbers) = Numbers::take_out(text.as_bytes()).unwrap();
        numbers.put_back(&object).unwrap()
    }

    /// What Python 3's `json.dumps(json.loads(…))` answers.
    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (read, written) in [
            ("0.1", "0.1"),
            ("1.0", "1.0"),
            ("1.50", "1.5"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1E5", "100000.0"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("0.000012", "1.2e-05"),
            ("1e-7", "1e-07"),
            ("1e15", "1000000000000000.0"),
            ("9999999999999998.0", "9999999999999998.0"),
            ("1e16", "1e+16"),
            ("123456789012345678.0", "1.2345678901234568e+17"),
            ("1e22", "1e+22"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("5e-324", "5e-324"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("9007199254740993", "9007199254740993"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert_eq!(again(&format!(r#"{{"a":{read}}}"#)), format!(r#"{{"a":{written}}}"#));
        }
    }

    #[test]
    fn only_numbers_are_lenient() {
        for text in [
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":+1}"#,
            r#"{"a":1e}"#,
            r#"{"a":--1}"#,
            r#"{"a":1e999}"#,
            r#"{"a":NaN}"#,
            r#"{"a":-Infinity}"#,
            r"{1.5:2}",
            r#"{"a":1.5,"a":1.5}"#,
            r#"{"a":"\ud800","b":1.5}"#,
            r#"{"a":1.5} {}"#,
            r#"{"a":1.5 2}"#,
            r#"{"a":"1.5}"#,
            r"[1.5]",
        ] {
            assert!(Numbers::take_out(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Numbers::take_out(b"{\"a\":\"\xff\"}").is_err());
        let huge = format!(r#"{{"a":1{}}}"#, "0".repeat(400));
        assert!(Numbers::take_out(huge.as_bytes()).is_err());
        let text = r#"{ "b\"1.5\\": "-2.5é1", "a" : [1.5e1, {"1": -7}, 2] }"#;
        assert_eq!(again(text), r#"{"a":[15.0,{"1":-7},2],"b\"1.5\\":"-2.5é1"}"#);
    }

    #[test]
    fn the_nearest_integers_are_canonical() {
        let text = br#"{"a":[1.9,-1.9,1e300,-1e300,9007199254740993,99999999999999999999,5,-0.0]}"#;
        let (object, numbers) = Numbers::take_out(text).unwrap();
        let most = 9_007_199_254_740_991_i64;
        let nearest = json::canonical(&numbers.nearest(&object).unwrap());
        assert_eq!(nearest, format!(r#"{{"a":[1,-1,{most},-{most},{most},{most},5,0]}}"#));
    }

    proptest! {
        #[test]
        fn what_was_written_is_written_the_same_again(a in any::<f64>(), b in any::<i64>(), key in ".{0,20}") {
            prop_assume!(a.is_finite());
            let once = again(&serde_json::json!({ key: [a, b] }).to_string());
            prop_assert_eq!(&again(&once), &once);
            prop_assert!(once.contains(&b.to_string()));
        }
    }
}
