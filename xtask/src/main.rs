//! Developer tasks: `cargo xtask tidy`, `cargo xtask coverage`, `cargo xtask bench`.
#![expect(clippy::print_stdout, reason = "a command-line tool talks on standard output")]

mod bench;
mod coverage;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

/// What one can ask for.
#[derive(Parser)]
#[command(about = "Developer tasks.")]
enum Task {
    /// Checks the house rules that compiler and clippy do not see.
    Tidy,
    /// Writes docs/endpoints.md from the specification's endpoints and the routers' table.
    Coverage {
        /// Only tell whether the page is up to date.
        #[arg(long)]
        check: bool,
    },
    /// Builds for release and measures, see docs/benchmarks.md; names of scenarios, or all.
    Bench {
        /// Which scenarios.
        scenarios: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Task::parse() {
        Task::Tidy => tidy::run(),
        Task::Coverage { check: true } => coverage::check(),
        Task::Coverage { check: false } => coverage::write(),
        Task::Bench { scenarios } => bench::run(&scenarios),
    }
}
