//! `/_matrix/identity/v2/validate`.

pub(crate) mod email;
pub(super) mod msisdn;
