//! `/_matrix/federation/v1/query`.

pub(in crate::routes) mod directory;
pub(in crate::routes) mod other;
pub(in crate::routes) mod profile;
