//! Measures a running `chappe` from outside, over HTTP: `cargo xtask bench [scenario…]`.
//!
//! Each scenario starts its own server on an empty data directory with the durable default and loads it. The table of
//! all figures is printed at the end. Client and server share the machine; the client's own work is part of the load.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures and progress are for the terminal")]
#![expect(clippy::disallowed_methods, reason = "a measuring program reads the clock and spawns its clients")]

mod hosted;
mod peer;
mod report;
mod scenarios;
mod stats;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;

use self::report::Row;

/// A scenario that takes longer has failed.
const LONGEST: Duration = Duration::from_mins(8);

/// Measures a `chappe` binary.
#[derive(Parser)]
struct Arguments {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/chappe")]
    binary: PathBuf,
    /// Multiplies the sizes that take long to set up; figures are only quoted at 1.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Which to run; all of them when none is named.
    scenarios: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    for name in &arguments.scenarios {
        let known = scenarios::ALL.iter().any(|(known, _)| known == name);
        anyhow::ensure!(known, "there is no scenario {name}");
    }
    let wanted = |name: &str| arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|s| s == name);
    let setting = scenarios::Setting { binary: arguments.binary.clone(), scale: arguments.scale };
    let circumstances = report::circumstances();
    let (mut rows, mut failed) = (Vec::new(), 0);
    for (name, scenario) in scenarios::ALL.iter().filter(|(name, _)| wanted(name)) {
        let begin = Instant::now();
        let outcome = tokio::time::timeout(LONGEST, scenario(setting.clone())).await;
        match outcome.context("took too long").flatten() {
            Ok(found) => rows.extend(found),
            Err(error) => {
                failed += 1;
                rows.push(Row::new(*name, format!("failed: {error:#}")));
            }
        }
        eprintln!("{name}: {:.0} s", begin.elapsed().as_secs_f64());
    }
    println!("{circumstances}\n\n{}", report::table(&rows));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
