//! `/_matrix/policy/v1`.

pub(in crate::routes) mod sign;
