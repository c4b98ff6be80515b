//! Removing old messages of a room.

use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::{Doing, Stop, Work};

/// Commits after which it is written down how far the work has come.
const AT_ONCE: usize = 20;

/// A room whose old messages are to be removed, and what has come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PurgeHistory {
    /// Which room.
    pub room: OwnedRoomId,
    /// The place in its timeline from which on everything stays.
    pub up_to: i64,
    /// Whether messages of this server's users go as well.
    pub with_local: bool,
    /// How many events are gone.
    #[serde(default)]
    pub purged: u64,
}

impl PurgeHistory {
    /// Goes through the timeline from its beginning, in small steps: the room stays usable meanwhile.
    pub(super) async fn run(mut self, doing: &mut Doing<'_>) -> Result<(), Stop> {
        let rooms = doing.jobs.rooms.clone();
        let (mut from, mut steps) = (Some(rooms.first_place(&self.room).await?), 0);
        while let Some(at) = from {
            if doing.jobs.world.is_stopping() {
                return Err(Stop::Later);
            }
            match rooms.purge_some(&self.room, at, self.up_to, self.with_local).await {
                // Somebody else was first: the same stretch again.
                Err(chappe_rooms::Error::Retry) => tokio::task::yield_now().await,
                done => {
                    let (next, count) = done?;
                    (from, self.purged, steps) = (next, self.purged + count, steps + 1);
                }
            }
            if steps % AT_ONCE == 0 {
                doing.note(&Work::PurgeHistory(self.clone())).await?;
            }
        }
        doing.note(&Work::PurgeHistory(self)).await?;
        Ok(())
    }
}
