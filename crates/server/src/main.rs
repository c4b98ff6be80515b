//! The `chappe` command.
fn main() {}
