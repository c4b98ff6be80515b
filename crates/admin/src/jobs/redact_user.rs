//! Redacting what somebody said, in all rooms or in some.

use std::collections::BTreeMap;

use chappe_rooms::{Actor, Draft, Standing};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::{Doing, Stop, Work};

/// Events redacted before it is written down how far the work has come.
const AT_ONCE: usize = 50;

/// Somebody whose events are to be redacted, and what has come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedactUser {
    /// Whose.
    pub user: OwnedUserId,
    /// In whose name: the user's own, or an administrator's.
    pub redactor: OwnedUserId,
    /// The rooms that are still to be gone through, the current one last.
    pub rooms: Vec<OwnedRoomId>,
    /// Why, for those who see it.
    pub reason: Option<String>,
    /// The newest events of each room, at most.
    pub limit: usize,
    /// How many were redacted.
    #[serde(default)]
    pub redacted: u64,
    /// Those that could not be, and why.
    #[serde(default)]
    pub failed: BTreeMap<OwnedEventId, String>,
}

impl RedactUser {
    /// Goes through the rooms. An event that is redacted already is passed over.
    pub(super) async fn run(mut self, doing: &mut Doing<'_>) -> Result<(), Stop> {
        let rooms = doing.jobs.rooms.clone();
        let actor = Actor { standing: Standing::Administrator, ..Actor::user(&self.redactor) };
        while let Some(room) = self.rooms.last().cloned() {
            let events = match rooms.said_by(&room, &self.user, self.limit).await {
                // The room has been removed.
                Err(chappe_rooms::Error::NotFound(_)) => Vec::new(),
                said => said?,
            };
            for (index, event) in events.into_iter().enumerate() {
                if doing.jobs.world.is_stopping() {
                    return Err(Stop::Later);
                }
                let draft = Draft::redaction(&event, self.reason.as_deref());
                match rooms.send(&actor, &room, draft, None).await {
                    Ok(_) => self.redacted += 1,
                    Err(chappe_rooms::Error::Retry) => return Err(Stop::Later),
                    Err(error) => {
                        self.failed.insert(event, error.to_string());
                    }
                }
                if index % AT_ONCE == AT_ONCE - 1 {
                    doing.note(&Work::RedactUser(self.clone())).await?;
                }
            }
            self.rooms.pop();
            doing.note(&Work::RedactUser(self.clone())).await?;
        }
        Ok(())
    }
}
