//! Gaps: events of the timeline with predecessors this server does not have. Where back-filling continues.

use ruma::OwnedEventId;

use crate::{Json, Reader, Tx, events::EventNum, rooms::RoomNid, table, tx::Error};

table! {
    /// Room, ordinal of the event, event → its missing previous events.
    Gaps = GAPS: (RoomNid, i64, EventNum) => Json<Vec<OwnedEventId>>;
}

/// A gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The place of the event before which history is missing.
    pub ordinal: i64,
    /// The event.
    pub num: EventNum,
    /// Its previous events that are missing.
    pub missing: Vec<OwnedEventId>,
}

impl Reader<'_> {
    /// The gaps of a room, oldest place first.
    pub async fn gaps(&self, nid: RoomNid) -> Result<Vec<Gap>, Error> {
        let rows = self.scan_all::<Gaps>(&nid).await?;
        let gap = |((_, ordinal, num), Json(missing))| Gap { ordinal, num, missing };
        Ok(rows.into_iter().map(gap).collect())
    }
}

impl Tx {
    /// Says what is missing before an event; nothing missing closes the gap.
    pub fn put_gap(&mut self, nid: RoomNid, gap: &Gap) -> &mut Self {
        let key = (nid, gap.ordinal, gap.num);
        if gap.missing.is_empty() {
            return self.delete::<Gaps>(&key);
        }
        self.put::<Gaps>(&key, &Json(gap.missing.clone()))
    }
}
