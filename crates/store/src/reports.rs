//! What users have reported to the administrators.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports.
    pub reporter: OwnedUserId,
    /// The room, or the room of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<OwnedRoomId>,
    /// The event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<OwnedEventId>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<OwnedUserId>,
    /// Why, in the reporter's words.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
}

table! {
    /// Position of the commit → the report.
    Reports = REPORTS: (u64, ()) => Json<Report>;
}
