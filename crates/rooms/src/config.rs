//! The `[rooms]` section of the configuration.

use std::sync::Arc;

use chappe_rules::{access::Access, retention::Policy};
use ruma::RoomVersionId;
use serde::{Deserialize, Serialize};

/// How rooms behave on this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version of rooms that are created without one.
    pub default_version: RoomVersionId,
    /// Users that `createRoom` may invite at once.
    pub max_invites_at_creation: usize,
    /// State events that `createRoom` takes in `initial_state`.
    pub max_initial_state: usize,
    /// Events asked of a peer at once to fill a gap before a received event.
    pub missing_events_batch: u16,
    /// Events before a received one that are fetched for it at most, over all rounds and peers.
    pub missing_events_limit: usize,
    /// Auth events, and single events of states, that are fetched for one event at most.
    pub auth_events_limit: usize,
    /// State keys on which states that one server tells, for what it sends, may differ from what is known here, an hour. A
    /// larger difference is taken as a whole, and nothing more then until the hours have passed that it is worth. Where what it
    /// sends rests on a fork of a thousand events or more, these count as well. Pages of old history, for which users of this
    /// server ask, have an account of their own, ten times as large.
    pub told_changes_per_hour: usize,
    /// State events and auth events taken from a peer at most when joining a room.
    pub join_state_limit: usize,
    /// Whether joins over federation are done as soon as the state without memberships is here, which follow behind.
    pub partial_joins: bool,
    /// How long other servers may take together while a client waits for its join, in seconds.
    pub join_timeout_seconds: u64,
    /// Rooms of a user in which a changed profile is announced, at most.
    pub profile_rooms_limit: usize,
    /// Servers with a member in the room that are asked for old events, at most.
    pub backfill_servers: usize,
    /// Events that each user may have wait for their time (MSC4140); 0: none.
    pub delayed_events_per_user: u64,
    /// How long an event may wait for its time, in seconds.
    pub delayed_events_seconds: u64,
    /// Depth of the queue of drafts per room; more are answered with "busy".
    pub queue_per_room: usize,
    /// What the server says to its users; none: nothing.
    pub notices: Option<crate::NoticesConfig>,
    /// Who may meet whom in which room; none: whoever the rooms let in. Goes with the profile `agents`.
    pub access: Option<Arc<Access>>,
    /// For how long what is said is kept; none: for ever.
    pub retention: Option<Policy>,
    /// What makes this server the policy server of rooms; none: it is none.
    pub policy_server: Option<crate::PolicyServerConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_version: RoomVersionId::V11,
            max_invites_at_creation: 200,
            max_initial_state: 200,
            missing_events_batch: 50,
            missing_events_limit: 5_000,
            auth_events_limit: 500,
            told_changes_per_hour: 200_000,
            join_state_limit: 500_000,
            partial_joins: true,
            join_timeout_seconds: 120,
            profile_rooms_limit: 10_000,
            backfill_servers: 5,
            delayed_events_per_user: 100,
            delayed_events_seconds: 24 * 60 * 60,
            queue_per_room: 10_000,
            notices: None,
            access: None,
            retention: None,
            policy_server: None,
        }
    }
}

/// The room versions that rooms may have by default, oldest first.
pub const VERSIONS: &[RoomVersionId] = &chappe_rules::version::SUPPORTED;
/// Room versions that rooms have where they are asked for.
pub const UNSTABLE_VERSIONS: &[&str] = &chappe_rules::version::UNSTABLE;
