//! The `chappe` command.

use std::process::ExitCode;

use chappe_server::Cli;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for work that blocks, besides those that look names up: as many as tokio has by itself.
const BLOCKING_THREADS: usize = 512;

fn main() -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().max_blocking_threads(BLOCKING_THREADS + chappe_world::LOOK_UPS);
    let done = match builder.build() {
        Ok(runtime) => runtime.block_on(Box::pin(Cli::parse().run())),
        Err(error) => Err(error.into()),
    };
    match done {
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
