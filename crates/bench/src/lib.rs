//! A `chappe` process and thin clients of it, for measurements and for tests from outside.

mod client;
mod server;

pub use self::{
    client::{Client, segment, sync_path},
    server::{Authority, Server},
};
