//! Files, functions and nesting stay small.

use super::{
    Finding,
    sources::{Source, block_end},
};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 80;
const NESTING: usize = 4;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if source.is_test() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let lines = production_lines(source);
    if lines > FILE_LINES {
        findings.push(Finding::new(
            "file-size",
            source,
            1,
            format!("{lines} lines without tests, {FILE_LINES} at most"),
        ));
    }
    for function in functions(&source.code) {
        let first = source.line_of(function.start);
        let lines = source.line_of(function.end) - first + 1;
        if lines > FUNCTION_LINES {
            let text = format!("{} has {lines} lines, {FUNCTION_LINES} at most", function.name);
            findings.push(Finding::new("function-size", source, first, text));
        }
        let depth = nesting(&source.code[function.body..function.end]);
        if depth > NESTING {
            let text = format!("{} nests {depth} deep, {NESTING} at most", function.name);
            findings.push(Finding::new("nesting", source, first, text));
        }
    }
    findings
}

/// Lines that are not blank in the file with its test modules taken out; comments count.
fn production_lines(source: &Source) -> usize {
    let mut tests = 0;
    for (start, _) in source.text.match_indices("#[cfg(test)]\nmod ") {
        let masked = super::mask::mask(&source.text[start..]);
        if let Some(open) = masked.find(['{', ';']) {
            let end = if masked.as_bytes()[open] == b'{' { block_end(&masked, open) } else { open };
            tests += masked[..end].lines().count();
        }
    }
    source.text.lines().count() - tests
}

struct Function<'a> {
    name: &'a str,
    start: usize,
    body: usize,
    end: usize,
}

fn functions(code: &str) -> Vec<Function<'_>> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        if code[..start].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[start + 3..];
        let name = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        let Some(body) = body_start(code, start) else { continue };
        if !name.is_empty() {
            found.push(Function { name, start, body, end: block_end(code, body) });
        }
    }
    found
}

/// The brace that opens a function's body, none for a declaration.
fn body_start(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (offset, byte) in code.as_bytes()[start..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(start + offset),
            _ => {}
        }
    }
    None
}

/// How deep control blocks lie in each other.
fn nesting(body: &str) -> usize {
    let (mut deepest, mut head) = (0, 1);
    let mut open: Vec<bool> = Vec::new();
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            b'{' => {
                open.push(at > 0 && is_control(&body[head..at]));
                deepest = deepest.max(open.iter().filter(|is_control| **is_control).count());
            }
            b'}' => {
                open.pop();
            }
            b';' => {}
            _ => continue,
        }
        head = at + 1;
    }
    deepest
}

/// Whether what stands before a brace opens a branch or a loop.
fn is_control(head: &str) -> bool {
    let mut words = head.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    !head.contains("impl ")
        && words.any(|word| matches!(word, "if" | "else" | "match" | "for" | "while" | "loop"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_nesting(body: &str, depth: usize) {
        assert_eq!(nesting(body), depth, "{body}");
    }

    #[test]
    fn control_blocks_nest_and_others_do_not() {
        check_nesting("{ a(); }", 0);
        check_nesting("{ if a { b } else { c } }", 1);
        check_nesting("{ for a in b { if c { match d { _ => {} } } } }", 3);
        check_nesting("{ let x = S { y: 1 }; x.map(|a| { a }) }", 0);
        check_nesting("{ match a { 1 => { if b { c } } _ => d } }", 2);
    }

    #[test]
    fn functions_are_found_with_their_bodies() {
        let code =
            "trait T { fn a(&self); fn b(x: [u8; 2]) -> u8 { 1 } }\npub async fn c() where X: Y {\n}\n";
        let found: Vec<_> = functions(code).into_iter().map(|f| (f.name, &code[f.body..f.end])).collect();
        assert_eq!(found, [("b", "{ 1 }"), ("c", "{\n}")]);
    }

    #[test]
    fn tests_do_not_count() {
        let long = "x();\n".repeat(700);
        let text = format!("//! A.\nfn a() {{}}\n#[cfg(test)]\nmod tests {{\nfn b() {{\n{long}}}\n}}\n");
        assert!(check(&Source::new("a.rs", text, false)).is_empty());
        let text = format!("//! A.\nfn a() {{\n{long}}}\n");
        let rules: Vec<_> = check(&Source::new("a.rs", text, false)).iter().map(|f| f.rule).collect();
        assert_eq!(rules, ["file-size", "function-size"]);
    }
}
