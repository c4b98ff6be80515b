//! `/_matrix/key/v2`.

pub(in crate::routes) mod query;
pub(in crate::routes) mod server;
