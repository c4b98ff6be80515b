//! `/_matrix/key`.

pub(super) mod v2;
