//! The ordered key-value contract, its memory engine and its conformance suite.
//!
//! Four verbs: [`Db::snapshot`], [`Snapshot::get`], [`Snapshot::scan`] and [`Db::commit`]. Reads see one
//! moment; a write is one [`Batch`] that happens whole or not at all. Each commit gets a [`Position`] in one
//! total order, and a reader that has seen position `n` has seen every position up to `n`.
//!
//! To add an engine: implement [`Engine`], then make `conformance::run` green with it.

mod batch;
pub mod conformance;
mod counting;
mod engine;
mod faulty;
mod memory;
mod overlay;

pub use self::{
    batch::{Batch, Change, Expectation, Stamped},
    counting::{Counting, RoundTrips, Trips, following},
    engine::{Class, CommitError, Db, Direction, Engine, Error, Page, Position, Range, Snapshot},
    faulty::{Fault, Faulty, Plan},
    memory::Memory,
    overlay::{Overlay, Resolved},
};
