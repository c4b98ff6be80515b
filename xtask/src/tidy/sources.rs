//! The files of the repository, read once.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::{Context, ensure};

use super::mask::mask;

/// One text file.
pub(super) struct Source {
    /// Path from the root of the repository.
    pub(super) path: String,
    /// Its text.
    pub(super) text: String,
    /// Rust only: the text without comments, literals and test modules, of the same length.
    pub(super) code: String,
    /// Whether the file may be executed.
    pub(super) executable: bool,
}

impl Source {
    pub(super) fn new(path: &str, text: String, executable: bool) -> Self {
        let code = if is_rust(path) { without_tests(&mask(&text)) } else { String::new() };
        Self { path: path.to_owned(), text, code, executable }
    }

    pub(super) fn is_rust(&self) -> bool {
        is_rust(&self.path)
    }

    /// Whether the whole file is a test.
    pub(super) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/benches/")
    }

    /// The line, counted from 1, of a byte of the text.
    pub(super) fn line_of(&self, byte: usize) -> usize {
        self.text[..byte].matches('\n').count() + 1
    }
}

fn is_rust(path: &str) -> bool {
    path.rsplit('.').next() == Some("rs") && path.contains('.')
}

/// Every tracked file, and every file that would be; binary ones are left out.
pub(super) fn all() -> anyhow::Result<Vec<Source>> {
    let listed = Command::new("git").args(["ls-files", "-co", "--exclude-standard", "-z"]).output()?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let mut sources = Vec::new();
    for path in String::from_utf8(listed.stdout)?.split('\0').filter(|path| !path.is_empty()) {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        if !metadata.is_file() {
            continue;
        }
        let bytes = fs::read(path).with_context(|| path.to_owned())?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source::new(path, text, metadata.permissions().mode() & 0o100 != 0));
        }
    }
    Ok(sources)
}

/// Blanks the modules that are compiled for tests only.
fn without_tests(code: &str) -> String {
    let mut kept = code.as_bytes().to_vec();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        if kept[start] == b' ' {
            continue;
        }
        let Some(open) = code[start..].find(['{', ';']).map(|offset| start + offset) else { continue };
        let end = if code.as_bytes()[open] == b'{' { block_end(code, open) } else { open + 1 };
        for byte in &mut kept[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(kept).unwrap_or_default()
}

/// The byte behind the brace that closes the one at `open`.
pub(super) fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_modules_are_blanked_and_lines_stay() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { {} }\n}\nfn c() {}\n";
        let source = Source::new("x.rs", text.to_owned(), false);
        assert_eq!(source.code.lines().count(), text.lines().count());
        assert!(
            source.code.contains("fn a") && source.code.contains("fn c") && !source.code.contains("fn b")
        );
    }
}
