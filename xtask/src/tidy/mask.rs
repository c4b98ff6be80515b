//! Blanks comments and literals of Rust source, so that braces and words can be counted.

/// The text with comments, strings and characters replaced by spaces; length and lines stay.
pub(super) fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut masked = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if let Some(end) = end {
            for byte in &mut masked[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            at = end;
        } else {
            at += 1;
        }
    }
    String::from_utf8(masked).unwrap_or_default()
}

/// Where the comment or literal that starts here ends, if one does.
fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + comment(rest)),
        [b'"', ..] => Some(at + string(rest)),
        [b'r', b'"' | b'#', ..] if !follows_word(bytes, at) => raw(rest).map(|length| at + length),
        [b'\'', ..] => character(rest).map(|length| at + length),
        _ => None,
    }
}

/// Whether the byte continues an identifier; the prefixes `b` and `c` of raw strings do not count.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    let is_word = |index: usize| bytes[index].is_ascii_alphanumeric() || bytes[index] == b'_';
    match at.checked_sub(1) {
        None => false,
        Some(before) if matches!(bytes[before], b'b' | b'c') => before > 0 && is_word(before - 1),
        Some(before) => is_word(before),
    }
}

fn comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            (b'/', b'*') => depth += 1,
            (b'*', b'/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut closing = vec![b'"'];
    closing.resize(1 + hashes, b'#');
    let body = 2 + hashes;
    let end = rest[body..].windows(closing.len()).position(|window| window == closing);
    Some(end.map_or(rest.len(), |end| body + end + closing.len()))
}

/// A character literal; a lifetime is none.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let end = rest[3..].iter().position(|b| *b == b'\'')?;
        return Some(3 + end + 1);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
    let valid = text.or_else(|error| std::str::from_utf8(&rest[1..=error.valid_up_to()]));
    let length = valid.ok()?.chars().next()?.len_utf8();
    (rest.get(1 + length) == Some(&b'\'')).then_some(length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, kept: &str) {
        let masked = mask(text);
        assert_eq!(masked.len(), text.len());
        assert_eq!(masked.split_whitespace().collect::<Vec<_>>().join(" "), kept);
    }

    #[test]
    fn comments_and_literals_go() {
        check("a // { b\nc", "a c");
        check("a /* { /* } */ { */ b", "a b");
        check(r#"a "{ \" {" b"#, "a b");
        check("a r#\"{ \" {\"# b", "a b");
        check("a br\"{\\\" b", "a b b");
        check("a '{' '\\'' '\\u{1F600}' 'é' b", "a b");
    }

    #[test]
    fn lifetimes_and_names_stay() {
        check("fn f<'a>(x: &'a str) { for_r(x) }", "fn f<'a>(x: &'a str) { for_r(x) }");
        check("let r#type = 1;", "let r#type = 1;");
    }
}
