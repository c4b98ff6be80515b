//! The `chappe` command.

use std::process::ExitCode;

use chappe_server::Cli;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(Cli::parse().run()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last word of the command")]
            {
                eprintln!("chappe: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
