//! Pages that name tests: each must be there.

use super::{Finding, sources::Source};

/// The pages, and in which column of their tables the tests stand, counted from the last one.
const PAGES: [(&str, usize); 2] = [("docs/security.md", 0), ("docs/tchap.md", 1)];

/// Names in the pages' tables that no source has a function for.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, column) in PAGES {
        let Some(page) = sources.iter().find(|source| source.path == path) else { continue };
        let lines = page.text.lines().enumerate();
        let names = lines.flat_map(|(index, line)| named(line, column).map(move |name| (index, name)));
        for (index, name) in names {
            let function = format!("fn {name}(");
            if !sources.iter().any(|source| source.is_rust() && source.text.contains(&function)) {
                findings.push(Finding::new("promise", page, index + 1, format!("there is no test {name}")));
            }
        }
    }
    findings
}

/// What a row of a table has in backquotes in a column, counted from the last one.
fn named(line: &str, column: usize) -> impl Iterator<Item = &str> {
    let row = line.strip_prefix('|').and_then(|row| row.trim_end().strip_suffix('|'));
    let tests = row.and_then(|row| row.rsplit('|').nth(column)).unwrap_or_default();
    let word =
        |text: &&str| text.contains('_') && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    tests.split('`').skip(1).step_by(2).filter(word)
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn tests_are_read_from_their_column() {
        let row = "| 1 | `a_b` | c | `one_test`, `two_tests`. Open: `keys/query` and `x` |";
        assert_eq!(named(row, 0).collect::<Vec<_>>(), ["one_test", "two_tests"]);
        assert_eq!(named(row, 2).collect::<Vec<_>>(), ["a_b"]);
        assert_eq!(named("no `row_at_all`", 0).count(), 0);
    }
}
