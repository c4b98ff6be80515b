//! `/_matrix/identity/v2/3pid`.

pub(super) mod bind;
pub(crate) mod get_validated_3pid;
pub(super) mod unbind;
