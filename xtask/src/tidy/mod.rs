//! The house rules, checked: arrows between crates, sizes, words.

mod arrows;
mod exceptions;
mod mask;
mod promises;
mod sizes;
mod sources;
mod words;

use std::{fmt, process::ExitCode};

use self::sources::Source;

/// One rule broken at one place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    rule: &'static str,
    path: String,
    line: usize,
    text: String,
}

impl Finding {
    fn new(rule: &'static str, source: &Source, line: usize, text: impl Into<String>) -> Self {
        Self { rule, path: source.path.clone(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.text)
    }
}

/// Runs every check; fails when a rule is broken or an exception is no longer needed.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let sources = sources::all()?;
    let mut findings = arrows::check()?;
    for source in &sources {
        findings.extend(words::check(source));
        if source.is_rust() {
            findings.extend(sizes::check(source));
        }
    }
    findings.extend(promises::check(&sources));
    let findings = exceptions::apply(findings);
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", sources.len(), findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
