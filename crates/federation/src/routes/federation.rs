//! `/_matrix/federation`.

pub(super) mod unstable;
pub(super) mod v1;
pub(super) mod v2;
