//! Developer tasks: tidy, coverage, bench.
fn main() {}
