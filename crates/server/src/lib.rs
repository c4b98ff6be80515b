//! The binary: command line, configuration, assembly, listeners, metrics, shutdown.
