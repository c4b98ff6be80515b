//! The page on security names tests: each must be there.

use super::{Finding, sources::Source};

/// The page.
const PAGE: &str = "docs/security.md";

/// Names in the page's tables that no source has a function for.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else { return Vec::new() };
    let mut findings = Vec::new();
    for (index, line) in page.text.lines().enumerate() {
        for name in named(line) {
            let function = format!("fn {name}(");
            if !sources.iter().any(|source| source.is_rust() && source.text.contains(&function)) {
                findings.push(Finding::new("security", page, index + 1, format!("there is no test {name}")));
            }
        }
    }
    findings
}

/// What a row of a table has in backquotes in its last column.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let row = line.strip_prefix('|').and_then(|row| row.trim_end().strip_suffix('|'));
    let tests = row.and_then(|row| row.rsplit('|').next()).unwrap_or_default();
    let word =
        |text: &&str| text.contains('_') && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    tests.split('`').skip(1).step_by(2).filter(word)
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn tests_are_read_from_the_last_column() {
        let row = "| 1 | `a_b` | c | `one_test`, `two_tests`. Open: `keys/query` and `x` |";
        assert_eq!(named(row).collect::<Vec<_>>(), ["one_test", "two_tests"]);
        assert_eq!(named("no `row_at_all`").count(), 0);
    }
}
