//! Reads of one room: a view of one moment, the door that decides who sees what, and the forms events are given in.

pub(crate) mod bundle;
pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod members;
pub(crate) mod messages;
pub(crate) mod render;
mod shared;
pub(crate) mod state;
pub(crate) mod timestamp;
pub(crate) mod token;
pub(crate) mod view;

#[cfg(test)]
mod tests;
