//! Application services: a server on loopback and a small service of the test's own.

mod acting;
mod bridge;
mod lookups;
mod transactions;
