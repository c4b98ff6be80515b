//! What every engine must do: one suite, run against each of them.
