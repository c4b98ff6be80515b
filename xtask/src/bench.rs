//! `cargo xtask bench`: builds for release, then lets `chappe-bench` measure.

use std::process::{Command, ExitCode};

use anyhow::Context as _;

/// Measures the named scenarios, or all of them.
pub(crate) fn run(scenarios: &[String]) -> anyhow::Result<ExitCode> {
    let arguments = ["build", "--release", "--package", "chappe-server", "--package", "chappe-bench"];
    let compiled = Command::new("cargo").args(arguments).status().context("cargo")?;
    anyhow::ensure!(compiled.success(), "the release build failed");
    let metadata = Command::new("cargo").args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout)?;
    let target = metadata["target_directory"].as_str().context("target_directory")?;
    // Beside the build: a temporary folder in memory would make every write durable at once.
    let data = format!("{target}/bench");
    std::fs::create_dir_all(&data)?;
    let measured = Command::new(format!("{target}/release/chappe-bench"))
        .args(["--binary", &format!("{target}/release/chappe")])
        .args(scenarios)
        .env("TMPDIR", data)
        .status()
        .context("chappe-bench")?;
    Ok(if measured.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
