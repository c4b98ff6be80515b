//! From bytes to text: what the server says, what the page says, or what the bytes look like.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Bytes in which a page says its character set (HTML, "Determining the character encoding").
const PRESCAN: usize = 1_024;

/// Bytes of a page as text; `declared` is the character set of the HTTP header. What is no character is replaced.
pub(super) fn decode(bytes: &[u8], declared: Option<&str>) -> String {
    let declared = declared.and_then(|label| Encoding::for_label(label.as_bytes()));
    let encoding = declared.or_else(|| in_page(bytes)).unwrap_or_else(|| looks_like(bytes));
    // A byte order mark wins over everything.
    encoding.decode(bytes).0.into_owned()
}

/// What the page says in its first bytes.
fn in_page(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(PRESCAN)]).to_ascii_lowercase();
    let tags = start.split('<').skip(1).map(|tag| tag.split('>').next().unwrap_or_default());
    let label = |tag: &str| match tag {
        _ if tag.starts_with("meta") => value(tag, "charset").map(str::to_owned),
        _ if tag.starts_with("?xml") => value(tag, "encoding").map(str::to_owned),
        _ => None,
    };
    let found = tags.filter_map(label).find_map(|label| Encoding::for_label(label.as_bytes()))?;
    // Whoever could read the tag has no UTF-16 before them.
    let is_wide = found == UTF_16LE || found == UTF_16BE;
    Some(if is_wide { UTF_8 } else { found })
}

/// The value after a name and `=`, within quotes or not.
fn value<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let rest = tag.split(name).skip(1).find_map(|rest| rest.trim_start().strip_prefix('='))?;
    let rest = rest.trim_start().trim_start_matches(['"', '\'']);
    rest.split(['"', '\'', ';', '/', '?', ' ', '\t', '\n', '\r']).next()
}

/// UTF-8 if it can be that, cut off at the end or not.
fn looks_like(bytes: &[u8]) -> &'static Encoding {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_some() => WINDOWS_1252,
        _ => UTF_8,
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn the_header_then_the_page_then_the_bytes_say_the_character_set() {
        let latin = b"<p>\xe9t\xe9 \x80</p>";
        assert_eq!(decode(latin, Some("iso-8859-1")), "<p>été €</p>");
        assert_eq!(decode(latin, None), "<p>été €</p>");
        assert_eq!(decode("<p>été</p>".as_bytes(), None), "<p>été</p>");
        for tag in [
            "<meta charset=koi8-r>",
            "<META CharSet = 'KOI8-R' />",
            "<meta http-equiv=content-type content=\"text/html; charset=koi8-r\">",
            "<?xml version=\"1.0\" encoding=\"koi8-r\"?>",
        ] {
            let page = [tag.as_bytes(), b"\xcd\xc9\xd2"].concat();
            assert_eq!(decode(&page, None), format!("{tag}мир"), "{tag}");
            assert_eq!(decode(&page, Some("koi8-r")), format!("{tag}мир"), "{tag}");
        }
        assert_eq!(decode(b"\xef\xbb\xbf\xc3\xa9", Some("iso-8859-1")), "é", "the mark wins");
        assert_eq!(decode(b"\xff\xfeh\0i\0", Some("utf-8")), "hi");
    }

    #[test]
    fn wrong_names_and_wrong_bytes_do_no_harm() {
        assert_eq!(decode(b"<meta charset=utf-16le>\xc3\xa9", None), "<meta charset=utf-16le>é");
        assert_eq!(decode(b"<meta charset=nonsense>\xc3\xa9", Some("rot13")), "<meta charset=nonsense>é");
        assert_eq!(decode(b"\xe9t\xe9", Some("utf-8")), "\u{fffd}t\u{fffd}");
        assert_eq!(decode("été".as_bytes().split_last().unwrap().1, None), "ét\u{fffd}", "cut off");
        assert_eq!(decode(b"", None), "");
        let hostile = "<meta ".repeat(10_000) + &"charset".repeat(10_000);
        assert_eq!(decode(hostile.as_bytes(), None).len(), hostile.len());
        // Seven bits with escapes, as used to smuggle tags past filters: text like any other here.
        let escaped = decode(b"\x1b$B<p>", Some("iso-2022-jp"));
        assert!(escaped.chars().count() <= 7, "{escaped}");
        assert_eq!(decode(b"<p>x", Some("utf-7")), "<p>x", "no browser reads it any more");
    }
}
