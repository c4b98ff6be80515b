//! What kind of file something is, told by its first bytes, and whether files of this kind are let through.

use crate::Config;

/// The MIME type of a file by its first bytes, as crate `infer` names it; `text/plain` and `application/octet-stream` for
/// what has no mark of its own.
fn kind(head: &[u8]) -> &'static str {
    match infer::get(head) {
        Some(found) => found.mime_type(),
        None if is_text(head) => "text/plain",
        None => "application/octet-stream",
    }
}

fn is_text(head: &[u8]) -> bool {
    let control = |text: &str| text.contains(|c: char| c.is_control() && !c.is_ascii_whitespace());
    match std::str::from_utf8(head) {
        Ok(text) => !control(text),
        // The last character may go on behind the first bytes.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).is_ok_and(|text| !control(text))
        }
        Err(_) => false,
    }
}

/// Whether a file with these first bytes is let through.
pub(crate) fn is_let_through(head: &[u8], config: &Config) -> bool {
    let (allowed, blocked) = (&config.allowed_mimetypes, &config.blocked_mimetypes);
    if allowed.is_empty() && blocked.is_empty() {
        return true;
    }
    let kind = kind(head);
    let lists = |list: &[String]| list.iter().any(|listed| listed.eq_ignore_ascii_case(kind));
    if allowed.is_empty() { !lists(blocked) } else { lists(allowed) }
}

#[cfg(test)]
mod tests {
    use super::{is_let_through, kind};
    use crate::Config;

    #[test]
    fn kinds_are_told_by_what_is_in_a_file() {
        for (head, wanted) in [
            (&b"MZ\x90\0\x03\0\0\0"[..], "application/vnd.microsoft.portable-executable"),
            (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "application/x-executable"),
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"%PDF-1.7", "application/pdf"),
            ("bonjour, c'est l'été".as_bytes(), "text/plain"),
            (&"é".as_bytes()[..1], "text/plain"),
            (b"", "text/plain"),
            (b"\x01\x02\x03", "application/octet-stream"),
            (b"caf\xe9 au lait", "application/octet-stream"),
        ] {
            assert_eq!(kind(head), wanted, "{head:?}");
        }
    }

    #[test]
    fn one_list_lets_through_the_other_one_does_not() {
        let list = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
        let config = |allowed: &[&str], blocked: &[&str]| Config {
            allowed_mimetypes: list(allowed),
            blocked_mimetypes: list(blocked),
            ..Config::default()
        };
        let png = b"\x89PNG\r\n\x1a\n";
        assert!(is_let_through(png, &config(&[], &[])));
        assert!(is_let_through(png, &config(&["IMAGE/PNG"], &[])));
        assert!(!is_let_through(png, &config(&["application/pdf"], &[])));
        assert!(!is_let_through(png, &config(&[], &["image/png"])));
        assert!(is_let_through(png, &config(&[], &["application/pdf"])));
    }
}
