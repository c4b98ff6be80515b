//! `/_matrix/federation/v1/3pid`.

pub(in crate::routes) mod onbind;
