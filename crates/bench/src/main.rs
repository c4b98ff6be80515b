//! Measures a running `chappe` from outside, over HTTP: `cargo xtask bench [scenario…]`.
//!
//! Each scenario starts its own server on an empty data directory with the durable default, loads it, and
//! prints one line per figure. Client and server share the machine; the client's own work is part of the load.
#![expect(clippy::print_stdout, reason = "figures go to standard output")]
#![expect(clippy::disallowed_methods, reason = "a measuring program reads the clock and spawns its clients")]

mod scenarios;
mod stats;

use std::path::PathBuf;

use clap::Parser;

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
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let wanted = |name: &str| arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|s| s == name);
    let setting = scenarios::Setting { binary: arguments.binary.clone(), scale: arguments.scale };
    let mut failed = 0;
    for (name, scenario) in scenarios::ALL {
        if !wanted(name) {
            continue;
        }
        println!("\n# {name}");
        if let Err(error) = scenario(setting.clone()).await {
            failed += 1;
            println!("failed: {error:#}");
        }
    }
    anyhow::ensure!(failed == 0, "{failed} scenarios failed");
    Ok(())
}
