//! Every table: typed keys and values, versions, the log, followers, blobs.
//!
//! To add a table: take the next free number in [`registry`], declare it with [`table!`] in the module of its
//! aggregate, and add its golden bytes to that module's test. A retired number is never used again.

pub mod accounts;
pub mod accounts_data;
pub mod accounts_keys;
pub mod aliases;
pub mod audit;
mod auth_chain;
mod auth_difference;
pub mod blocks;
mod cache;
pub mod delayed;
pub mod events;
pub mod expiry;
pub mod gaps;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_accounts;
#[cfg(test)]
mod golden_delivery;
mod hex32;
pub mod identity;
pub mod identity_service;
pub mod jobs;
mod key;
mod log;
mod log_tail;
pub mod media;
pub mod members;
mod migrate;
pub mod network_list;
pub mod notices;
pub mod oauth;
pub mod out_of_band;
pub mod outbox;
mod pack;
mod packed_pdu;
pub mod partial;
mod purge;
pub mod receipts;
pub mod registry;
pub mod relations;
pub mod reports;
pub mod rooms;
pub mod sent_joins;
pub mod server_keys;
pub mod services;
pub mod state;
pub mod statistics;
pub mod sticky;
mod table;
pub mod thread_subscriptions;
pub mod timeline;
pub mod transactions;
mod tx;
pub mod unread;
pub mod validity;
mod value;

pub use chappe_kv::{Direction, Position, following};

pub use self::{
    events::{EventMeta, EventNum, NewEvent, Status, StoredPdu},
    key::{Key, KeyReader, KeyWriter},
    log::{AccountNews, Cursors, Entry, Index, Log, LogEntry, LogInMethod, Meta},
    members::{MemberChange, Membership},
    migrate::FORMAT,
    outbox::OutboxItem,
    purge::Removed,
    rooms::{Keeping, RoomHead, RoomNid, WholeSince},
    state::{Conflicted, KeyChange, KeyCourse, KeyId, StateChange, StateRef, StateWriter},
    table::{Table, TableInfo},
    tx::{Error, Reader, Store, Tx},
    value::{At, Json, Value},
};
