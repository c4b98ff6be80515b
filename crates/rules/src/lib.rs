//! Pure Matrix: the same events in, the same answer out, on every machine. No I/O, no clock, no async.
//!
//! The order in which a received event meets these modules: [`pdu`] (format), [`check`] (signatures, hash),
//! [`auth`] (authorization), [`access`] (this network's own rules). An event made here goes through [`build`].

pub mod access;
pub mod acl;
pub mod appservice;
pub mod auth;
pub mod build;
pub mod check;
pub mod client;
pub mod content_rules;
mod error;
pub mod glob;
pub mod json;
pub mod names;
mod numbers;
mod opened;
pub mod outsiders;
mod owned_state;
pub mod pdu;
pub mod policy;
pub mod policy_server;
pub mod power;
pub mod presence;
pub mod push;
pub mod redact;
pub mod resolve;
pub mod retention;
pub mod third_party;
mod tree;
pub mod unpadded;
pub mod version;
pub mod visibility;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod laws;

pub use self::{error::Error, pdu::Pdu};
