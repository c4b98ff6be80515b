//! Where a rule does not hold, each with its reason.

use super::Finding;

/// Rule, file, reason. An entry that excuses nothing is itself a finding.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("call", "crates/web/src/finish.rs", "tokio's clock, which a simulation drives; web has no World"),
    ("call", "crates/web/src/rates.rs", "tokio's clock, which a simulation drives; web has no World"),
];

/// Takes out what is excused and adds what is excused in vain.
pub(super) fn apply(findings: Vec<Finding>) -> Vec<Finding> {
    apply_all(findings, EXCEPTIONS)
}

fn apply_all(mut findings: Vec<Finding>, exceptions: &[(&'static str, &str, &str)]) -> Vec<Finding> {
    for (rule, path, reason) in exceptions {
        let before = findings.len();
        findings.retain(|finding| finding.rule != *rule || finding.path != *path);
        if findings.len() == before {
            let text = format!("excused ({reason}), but there is nothing to excuse");
            findings.push(Finding { rule, path: (*path).to_owned(), line: 0, text });
        }
    }
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_excuses_one_rule_in_one_file_and_must_be_needed() {
        let finding =
            |rule, path: &str| Finding { rule, path: path.to_owned(), line: 1, text: String::new() };
        let findings = vec![finding("file-size", "a.rs"), finding("nesting", "a.rs")];
        let exceptions = [("file-size", "a.rs", "a table"), ("file-size", "b.rs", "a table")];
        let left: Vec<_> =
            apply_all(findings, &exceptions).into_iter().map(|f| (f.rule, f.path, f.line)).collect();
        assert_eq!(left, [("file-size", "b.rs".to_owned(), 0), ("nesting", "a.rs".to_owned(), 1)]);
    }
}
