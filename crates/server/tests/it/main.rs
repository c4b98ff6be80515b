//! The assembled server from outside: over real sockets, on a temporary database.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not there")]

mod admin;
mod appservices;
mod backup;
mod client;
mod deploy;
mod host;
mod hostile;
mod identity;
mod lab;
mod life;
mod network;
mod partial;
mod peers;
mod push;
mod reload;
mod round_trips;
mod sign_up;
mod tchap;
mod tls;
mod whose;
