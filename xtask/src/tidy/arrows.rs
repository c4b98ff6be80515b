//! Dependencies between our crates go the way `docs/architecture.md` says, and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::Finding;

const PAGE: &str = "docs/architecture.md";
const HEADING: &str = "## Crates";

/// Crate → the crates of ours that it may use.
type Arrows = BTreeMap<String, BTreeSet<String>>;

pub(super) fn check() -> anyhow::Result<Vec<Finding>> {
    let page = fs::read_to_string(PAGE).context(PAGE)?;
    Ok(compare(&allowed(&page), &drawn()?))
}

fn compare(allowed: &Arrows, drawn: &Arrows) -> Vec<Finding> {
    let finding = |text| Finding { rule: "arrows", path: PAGE.to_owned(), line: 0, text };
    let mut findings = Vec::new();
    for (name, used) in drawn {
        let Some(may) = allowed.get(name) else {
            findings.push(finding(format!("the table of crates lacks `{name}`")));
            continue;
        };
        for other in used.difference(may) {
            findings.push(finding(format!("`{name}` may not depend on `{other}`")));
        }
    }
    for name in allowed.keys().filter(|name| !drawn.contains_key(*name)) {
        findings.push(finding(format!("the table of crates lists `{name}`, which is not there")));
    }
    findings
}

/// Reads the table under the heading: the first column names the crate, the third what it may use.
fn allowed(page: &str) -> Arrows {
    let table = page.split_once(HEADING).map_or("", |(_, rest)| rest);
    let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
    let mut arrows = Arrows::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (Some(name), Some(uses)) = (cells.get(1), cells.get(3)) else { continue };
        let uses = uses.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        arrows.insert(name.trim_matches('`').to_owned(), uses);
    }
    arrows
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// What the manifests say, tests left aside.
fn drawn() -> anyhow::Result<Arrows> {
    let output = Command::new("cargo").args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let short = |name: &str| name.trim_start_matches("chappe-").to_owned();
    let arrows = metadata.packages.iter().map(|package| {
        let ours =
            package.dependencies.iter().filter(|d| d.path.is_some() && d.kind.as_deref() != Some("dev"));
        (short(&package.name), ours.map(|d| short(&d.name)).collect())
    });
    Ok(arrows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# A\n## Crates\n| crate | does | may use | never |\n|---|---|---|---|\n\
                         | `a` | one | – | x |\n| `b` | two | `a` | y |\n\n## Next\n| `c` | | `a` | |\n";

    fn arrows(pairs: &[(&str, &[&str])]) -> Arrows {
        let set = |uses: &[&str]| uses.iter().map(|name| (*name).to_owned()).collect();
        pairs.iter().map(|(name, uses)| ((*name).to_owned(), set(uses))).collect()
    }

    #[test]
    fn the_table_is_read() {
        assert_eq!(allowed(TABLE), arrows(&[("a", &[]), ("b", &["a"])]));
    }

    #[test]
    fn wrong_arrows_and_missing_rows_are_found() {
        let said = |drawn| compare(&allowed(TABLE), &drawn).into_iter().map(|f| f.text).collect::<Vec<_>>();
        assert!(said(arrows(&[("a", &[]), ("b", &["a"])])).is_empty());
        assert_eq!(said(arrows(&[("a", &["b"]), ("b", &[])])), ["`a` may not depend on `b`"]);
        assert_eq!(said(arrows(&[("a", &[]), ("b", &[]), ("d", &[])])), ["the table of crates lacks `d`"]);
        assert_eq!(said(arrows(&[("a", &[])])), ["the table of crates lists `b`, which is not there"]);
    }
}
