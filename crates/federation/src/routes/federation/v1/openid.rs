//! `/_matrix/federation/v1/openid`.

pub(in crate::routes) mod userinfo;
