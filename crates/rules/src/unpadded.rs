//! Base64 in which hashes, signatures and keys are written, read as other servers read it.

use std::iter::repeat_n;

/// The bytes of a text in base64, as Synapse reads them; `None` where it reads none.
///
/// Either alphabet counts, also both in one text. Other characters are skipped, nothing is read behind the padding, and bits
/// that are left over need not be zero. Specification: appendices, "Unpadded Base64", which has one alphabet and does not say
/// what becomes of other characters. Whoever is stricter than the others can be parted from them: by a hash or a signature that
/// is right there and wrong here.
///
/// There are never more bytes than characters, of which there are as many as the caller lets through.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() {
        return None;
    }
    // What the length lacks, skipped characters and padding of its own included: that may be too little.
    let padding = text.len().next_multiple_of(4) - text.len();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut place, mut before, mut pads) = (0, 0_u8, 0);
    for character in text.bytes().chain(repeat_n(b'=', padding)) {
        if character == b'=' {
            pads += usize::from(place >= 2);
            if place >= 2 && place + pads >= 4 {
                return Some(bytes);
            }
            continue;
        }
        let Some(bits) = six_bits(character) else { continue };
        pads = 0;
        match place {
            0 => {}
            1 => bytes.push((before << 2) | (bits >> 4)),
            2 => bytes.push((before << 4) | (bits >> 2)),
            _ => bytes.push((before << 6) | bits),
        }
        before = bits;
        place = (place + 1) % 4;
    }
    (place == 0).then_some(bytes)
}

fn six_bits(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
    };
    use proptest::prelude::*;

    use super::decode;

    /// What `decode_base64` of `unpaddedbase64` 2.1 answers, which Synapse uses, on Python 3.11.
    #[test]
    fn base64_is_read_as_synapse_reads_it() {
        let read: [(&str, Option<&[u8]>); 41] = [
            ("", Some(&[])),
            ("AQID", Some(&[1, 2, 3])),
            ("AQIDBA", Some(&[1, 2, 3, 4])),
            ("AQIDBA==", Some(&[1, 2, 3, 4])),
            ("AQIDBAU", Some(&[1, 2, 3, 4, 5])),
            ("AQIDBAU=", Some(&[1, 2, 3, 4, 5])),
            ("+/+/", Some(&[251, 255, 191])),
            ("-_-_", Some(&[251, 255, 191])),
            ("+_-/", Some(&[251, 255, 191])),
            ("AQ", Some(&[1])),
            ("AR", Some(&[1])),
            ("A", None),
            ("AQIDB", None),
            ("====", Some(&[])),
            ("=AQID", Some(&[1, 2, 3])),
            ("AQID=", Some(&[1, 2, 3])),
            ("AQID====", Some(&[1, 2, 3])),
            ("AQ=", Some(&[1])),
            ("AQ==AQID", Some(&[1])),
            ("AQ=A", None),
            ("AQ=AAQ", None),
            ("AQI=D", Some(&[1, 2])),
            ("AQ=I=D", Some(&[1, 2])),
            ("AQ!D", None),
            ("AQ!ID", Some(&[1, 2, 3])),
            ("AQI D", Some(&[1, 2, 3])),
            ("!AQID!", Some(&[1, 2, 3])),
            ("AQ\u{0}ID!!!", Some(&[1, 2, 3])),
            ("AQI!", None),
            ("A!QIDB", None),
            ("AQID!BA", None),
            ("AQID!!BA", None),
            ("AQID!!!BA", Some(&[1, 2, 3, 4])),
            ("AQIDBA\n", None),
            ("AQIDBA\n=", None),
            ("AQIDBA=\n=", Some(&[1, 2, 3, 4])),
            ("AQIDBA==\n", Some(&[1, 2, 3, 4])),
            ("%%%%", Some(&[])),
            ("%%%%A", None),
            ("AQID\u{e9}", None),
            ("\u{ff}", None),
        ];
        for (text, bytes) in read {
            assert_eq!(decode(text).as_deref(), bytes, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_in_either_alphabet_is_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for text in [
                STANDARD.encode(&bytes),
                STANDARD_NO_PAD.encode(&bytes),
                URL_SAFE.encode(&bytes),
                URL_SAFE_NO_PAD.encode(&bytes),
            ] {
                prop_assert_eq!(decode(&text), Some(bytes.clone()));
            }
        }

        #[test]
        fn whatever_comes_is_read_or_not(text in "[ -~]{0,80}") {
            prop_assert!(decode(&text).is_none_or(|bytes| bytes.len() <= text.len()));
        }
    }
}
