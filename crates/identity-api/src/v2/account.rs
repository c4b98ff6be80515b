//! `/_matrix/identity/v2/account`.

pub(super) mod logout;
pub(super) mod register;
pub(super) mod show;
