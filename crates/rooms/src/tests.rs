//! Rooms of one server and of several, over the memory engine and a network inside the process.

mod access;
mod beside;
mod delayed;
mod erased;
mod federation;
mod forks;
mod handshakes;
mod hostile;
mod local;
mod malformed;
pub(crate) mod net;
mod old_versions;
mod outside;
mod partial;
mod policy_server;
mod purge;
mod put_out;
mod reads;
mod redacted;
mod retention;
mod sent_joins;
mod upgrades;
mod wipe;
