//! `/_matrix/federation/v2`.

pub(in crate::routes) mod invite;
pub(in crate::routes) mod send_join;
pub(in crate::routes) mod send_leave;
