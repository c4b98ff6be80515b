//! First lines, names, words and calls that do not belong in the repository.

use super::{Finding, sources::Source};

const BANNED_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "misc"];

/// What may stand in one crate only, and is found by its text: rule, text, folder where it may, what to do instead.
const BANNED_CALLS: &[(&str, &str, &str)] = &[
    ("SystemTime::now", "crates/world/", "ask world for the time"),
    ("Instant::now", "crates/world/", "ask world for the time"),
    ("tokio::spawn", "crates/world/", "spawn through world"),
    ("task::spawn_blocking", "crates/world/", "spawn through world"),
    ("rand::rng", "crates/world/", "draw from world"),
    ("rand::random", "crates/world/", "draw from world"),
    ("thread_rng", "crates/world/", "draw from world"),
    ("TcpStream::connect", "crates/world/", "connect through world"),
    ("TcpListener::bind", "crates/server/", "listeners belong to the server"),
    ("std::env::var", "crates/server/", "configuration is read in crates/server"),
];

/// Whose work it is to look at the machine, or at Chappe, from outside; and what runs in tests alone.
const OUTSIDE: &[&str] =
    &["crates/bench/", "crates/fuzz/", "crates/server/", "crates/kv-rocksdb/", "interop/", "xtask/"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::from_iter(names(source));
    findings.extend(machine_paths(source));
    findings.extend(scripts(source));
    if source.is_rust() {
        findings.extend(first_line(source));
        findings.extend(allowed_lints(source));
        if !source.is_test() {
            findings.extend(calls(source));
        }
    }
    findings
}

fn names(source: &Source) -> Option<Finding> {
    let banned = source.path.split(['/', '.']).find(|part| BANNED_NAMES.contains(part))?;
    Some(Finding::new("name", source, 1, format!("`{banned}` says nothing: name what it is")))
}

/// Paths of somebody's machine mean nothing on another.
fn machine_paths(source: &Source) -> Vec<Finding> {
    // Written in two parts so that this file does not find itself.
    let beginnings =
        [concat!("/home", "/"), concat!("/root", "/"), concat!("/Users", "/"), concat!("/wor", "k/")];
    let is_path = |line: &str, beginning: &str| {
        line.match_indices(beginning).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '~'))
        })
    };
    let lines = source.text.lines().enumerate();
    let hits = lines.filter(|(_, line)| beginnings.iter().any(|beginning| is_path(line, beginning)));
    hits.map(|(number, _)| Finding::new("machine-path", source, number + 1, "a path of one machine"))
        .collect()
}

fn scripts(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has_interpreter = source.text.starts_with("#!/");
    if has_interpreter != source.executable {
        findings.push(Finding::new(
            "script",
            source,
            1,
            "a script is executable and begins with #!, nothing else is",
        ));
    }
    let is_shell = has_interpreter && source.text.lines().next().is_some_and(|line| line.ends_with("sh"));
    if is_shell && !source.text.contains("set -euo pipefail") {
        findings.push(Finding::new("script", source, 1, "a shell script sets -euo pipefail"));
    }
    findings
}

fn first_line(source: &Source) -> Option<Finding> {
    let is_said = source.text.starts_with("//! ");
    (!is_said).then(|| Finding::new("first-line", source, 1, "a file opens with one `//!` sentence"))
}

fn allowed_lints(source: &Source) -> Vec<Finding> {
    let masked = super::mask::mask(&source.text);
    let places = masked.match_indices("#[allow(").chain(masked.match_indices("#![allow("));
    places
        .map(|(at, _)| {
            Finding::new("allow", source, source.line_of(at), "use #[expect(lint, reason = \"…\")]")
        })
        .collect()
}

fn calls(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (text, home, instead) in BANNED_CALLS {
        if source.path.starts_with(home) || OUTSIDE.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        for (at, _) in source.code.match_indices(text) {
            let line = source.line_of(at);
            findings.push(Finding::new("call", source, line, format!("`{text}` outside {home}: {instead}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_rules(path: &str, text: &str, executable: bool, rules: &[&str]) {
        let source = Source::new(path, text.to_owned(), executable);
        let found: Vec<_> = check(&source).iter().map(|finding| finding.rule).collect();
        assert_eq!(found, rules, "{path}");
    }

    #[test]
    fn each_rule_finds_its_breach() {
        check_rules("crates/a/src/b.rs", "//! A.\n", false, &[]);
        check_rules("crates/a/src/b.rs", "// A.\n", false, &["first-line"]);
        check_rules("crates/a/src/utils.rs", "//! A.\n", false, &["name"]);
        check_rules("crates/a/src/b.rs", "//! A.\n#[allow(dead_code)]\nfn a() {}\n", false, &["allow"]);
        check_rules("crates/a/src/b.rs", "//! A.\nfn a() { tokio::spawn(b) }\n", false, &["call"]);
        check_rules("crates/world/src/b.rs", "//! A.\nfn a() { tokio::spawn(b) }\n", false, &[]);
        check_rules("crates/a/src/b.rs", "//! A.\n// tokio::spawn is not used.\n", false, &[]);
        check_rules("docs/a.md", concat!("see /ro", "ot/a\n"), false, &["machine-path"]);
        check_rules("docs/a.md", "see crates/home/a and $HOME/a\n", false, &[]);
        check_rules("run", "#!/usr/bin/env bash\nset -euo pipefail\n", true, &[]);
        check_rules("run", "#!/usr/bin/env bash\nset -euo pipefail\n", false, &["script"]);
        check_rules("run", "#!/usr/bin/env bash\n", true, &["script"]);
    }
}
