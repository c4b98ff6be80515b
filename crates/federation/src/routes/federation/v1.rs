//! `/_matrix/federation/v1`.

pub(in crate::routes) mod backfill;
pub(in crate::routes) mod event;
pub(in crate::routes) mod event_auth;
pub(in crate::routes) mod exchange_third_party_invite;
pub(in crate::routes) mod get_missing_events;
pub(in crate::routes) mod hierarchy;
pub(in crate::routes) mod invite;
pub(in crate::routes) mod make_join;
pub(in crate::routes) mod make_knock;
pub(in crate::routes) mod make_leave;
pub(in crate::routes) mod openid;
pub(in crate::routes) mod public_rooms;
pub(in crate::routes) mod query;
pub(in crate::routes) mod send;
pub(in crate::routes) mod send_join;
pub(in crate::routes) mod send_knock;
pub(in crate::routes) mod send_leave;
pub(in crate::routes) mod state;
pub(in crate::routes) mod state_ids;
pub(in crate::routes) mod threepid;
pub(in crate::routes) mod timestamp_to_event;
pub(in crate::routes) mod user;
pub(in crate::routes) mod version;
