//! Integers in texts, as other servers read them where a room version lets levels be texts.

use ruma::Int;

/// The most digits that are read.
const MOST_DIGITS: usize = 4_300;
/// The zeros of the decimal digits of Unicode 15.1, each before its one to nine.
const ZEROS: [u32; 68] = [
    0x0030, 0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66,
    0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50,
    0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30,
    0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0,
    0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x11F50, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2,
    0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E4F0, 0x1E950, 0x1FBF0,
];

/// The integer that a text is: decimal digits of any script, between two of which there may be one `_`, after a sign or none,
/// among white space. What is beyond the integers of canonical JSON is the last of them.
///
/// Specification: room versions 1 to 9, "Authorisation rules", which let a level be a string that is an integer. How it is
/// written they leave open: this is what Python's `int` reads.
pub(super) fn integer(text: &str) -> Option<Int> {
    let text = text.trim();
    let (mut absolute, mut count) = (0_i64, 0);
    for part in text.strip_prefix(['+', '-']).unwrap_or(text).split('_') {
        if part.is_empty() {
            return None;
        }
        for character in part.chars() {
            absolute = absolute.saturating_mul(10).saturating_add(digit(character)?);
            count += 1;
        }
    }
    let number = if text.starts_with('-') { -absolute } else { absolute };
    (count <= MOST_DIGITS).then(|| Int::new_saturating(number))
}

/// The level that a text is in a room whose levels may be texts.
pub fn level(text: &str) -> Option<i64> {
    integer(text).map(i64::from)
}

fn digit(character: char) -> Option<i64> {
    let code = u32::from(character);
    let zero = ZEROS[..ZEROS.partition_point(|zero| *zero <= code)].last()?;
    let digit = code - zero;
    (digit < 10).then(|| i64::from(digit))
}

#[cfg(test)]
mod tests {
    use ruma::Int;

    use super::{MOST_DIGITS, ZEROS, integer};

    /// What `int` of Python 3 answers.
    #[test]
    fn texts_are_read_as_other_servers_read_them() {
        for (text, read) in [
            ("50", Some(50)),
            ("00050", Some(50)),
            ("0_0", Some(0)),
            ("-0", Some(0)),
            ("+5", Some(5)),
            ("-5", Some(-5)),
            (" 50", Some(50)),
            ("50\t\r\n", Some(50)),
            ("\u{b}5\u{c}", Some(5)),
            ("\u{a0}50\u{3000}", Some(50)),
            ("\u{85} 5", Some(5)),
            ("1_0", Some(10)),
            ("1_2_3", Some(123)),
            ("５０", Some(50)),
            ("-５_0", Some(-50)),
            ("\u{663}", Some(3)),
            ("\u{1d7db}", Some(3)),
            ("\u{1fbf9}", Some(9)),
            ("", None),
            (" ", None),
            ("+", None),
            ("-", None),
            ("++5", None),
            ("+-5", None),
            ("--5", None),
            ("- 5", None),
            ("+ 5", None),
            ("5 0", None),
            ("_10", None),
            ("10_", None),
            ("1__0", None),
            ("+_5", None),
            ("\u{ff0d}5", None),
            ("\u{1c}50", None),
            ("50\u{1f}", None),
            ("\u{200b}50", None),
            ("\u{feff}5", None),
            ("5\u{0}", None),
            ("\u{7f}5", None),
            ("\u{b2}", None),
            ("\u{2460}", None),
            ("0x10", None),
            ("1e3", None),
            ("5.0", None),
            ("1,000", None),
            ("fifty", None),
        ] {
            assert_eq!(integer(text).map(i64::from), read, "{text:?}");
        }
    }

    #[test]
    fn what_is_beyond_all_integers_is_the_last_of_them() {
        for (text, read) in [
            ("9007199254740991", Int::MAX),
            ("9007199254740992", Int::MAX),
            ("-9007199254740991", Int::MIN),
            ("-9007199254740992", Int::MIN),
            ("-9223372036854775808", Int::MIN),
            ("123456789012345678901234567890", Int::MAX),
        ] {
            assert_eq!(integer(text), Some(read), "{text}");
        }
        let digits = |count: usize| "9".repeat(count);
        assert_eq!(integer(&format!(" -{}", digits(MOST_DIGITS))), Some(Int::MIN));
        assert_eq!(integer(&digits(MOST_DIGITS + 1)), None, "nor does Python read so many");
        assert_eq!(integer(&format!("{}1", "0".repeat(MOST_DIGITS))), None);
    }

    #[test]
    fn every_script_has_ten_digits() {
        assert!(ZEROS.is_sorted());
        for zero in ZEROS {
            for value in 0..10 {
                let text = char::from_u32(zero + value).unwrap().to_string();
                assert_eq!(integer(&text), Some(Int::from(value)), "{text}");
            }
        }
        let before = [0x2f, 0x65f, 0x6ef, 0xff0f, 0x1d7cd, 0x1fbef];
        let behind = [0x3a, 0x66a, 0x6fa, 0xff1a, 0x1d800, 0x1fbfa];
        for neither in before.into_iter().chain(behind) {
            assert_eq!(integer(&char::from_u32(neither).unwrap().to_string()), None, "{neither:x}");
        }
    }
}
