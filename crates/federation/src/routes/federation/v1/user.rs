//! `/_matrix/federation/v1/user`.

pub(in crate::routes) mod devices;
pub(in crate::routes) mod keys;
