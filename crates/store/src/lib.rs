//! Every table: typed keys and values, versions, the log, followers, blobs.
//!
//! To add a table: take the next free number in [`registry`], declare it with [`table!`] in the module of its
//! aggregate, and add its golden bytes to that module's test. A retired number is never used again.

pub mod identity;
mod key;
mod log;
pub mod outbox;
pub mod registry;
pub mod server_keys;
mod table;
mod tx;
mod value;

pub use chappe_kv::{Direction, Position};

pub use self::{
    key::{Key, KeyReader, KeyWriter},
    log::{Entry, LogEntry},
    outbox::OutboxItem,
    table::{Table, TableInfo},
    tx::{Error, Reader, Store, Tx},
    value::{Json, Value},
};
