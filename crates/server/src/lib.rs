//! The binary: command line, configuration, assembly, listeners, metrics, shutdown.

pub mod config;
