//! The binary: command line, configuration, assembly, listeners, metrics, shutdown.

mod admin_socket;
mod assemble;
mod beside;
mod cli;
mod clock;
pub mod config;
mod connection;
mod files;
mod fleeting;
mod listen;
pub mod mail_sink;
mod observe;
mod places;
mod process;
mod registrations;
mod reload;
mod restored;
mod resumed;
mod sections;
mod serve;
mod service;
mod tls;
mod upkeep;
mod watched;
mod whose;

pub use self::{assemble::House, cli::Cli, serve::Server};
