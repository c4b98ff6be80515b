//! `/_matrix/federation/v1/user/keys`.

pub(in crate::routes) mod claim;
pub(in crate::routes) mod query;
