//! `/_matrix/policy`.

pub(super) mod v1;
