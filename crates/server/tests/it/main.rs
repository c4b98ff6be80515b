//! The assembled server from outside: over real sockets, on a temporary database.

mod admin;
mod client;
mod lab;
mod life;
mod sign_up;
mod tls;
